"""An ensemble's scores are the mean over traces of the same samples, whatever order their factors stand in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fgtrac
from softmax_traces import Problem, scored_trace


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> list[Problem]:
    """Three trainings; the rows of the last one's factors stand in another order."""
    folder = tmp_path_factory.mktemp("ensemble")
    made = [scored_trace(folder / str(n), seed=n, trace_id=bytes([n]) * 16) for n in range(2)]
    return [*made, scored_trace(folder / "2", seed=2, trace_id=bytes([2]) * 16, shuffled=True)]


def mean_matrix(problems: list[Problem], role: str) -> np.ndarray:
    """(rows, targets) of the first trace, the mean over all."""
    first = problems[0]
    parts = []
    for one in problems:
        rows = [one.names["train"].index(name) for name in first.names["train"]]
        columns = [one.names[role].index(name) for name in first.names[role]]
        parts.append(one.matrix(role)[rows][:, columns])
    return np.mean(parts, axis=0)


def test_the_scores_are_the_mean_over_the_traces(problems: list[Problem]) -> None:
    together = fgtrac.ensemble([fgtrac.open(p.path) for p in problems])
    told = together.explain("digits:345", "role:test", k=6)
    truth = mean_matrix(problems, "test")
    for one, column in zip(told.toward, (truth[:, 5], truth.mean(axis=1)), strict=True):
        order = np.argsort(-column, kind="stable")
        assert [s.name for s in one.proponents] == [problems[0].names["train"][i] for i in order[:6]]
        assert [s.name for s in one.opponents] == [problems[0].names["train"][i] for i in order[::-1][:6]]
        for s in (*one.proponents, *one.opponents):
            assert s.score == pytest.approx(column[problems[0].names["train"].index(str(s.name))], rel=1e-3)
            assert s.score == pytest.approx(np.mean(s.trace), rel=1e-4)
    assert told.columns == tuple(str(p.path) for p in problems)
    assert "3 traces" in str(told)


def test_of_one_trace_it_is_that_trace(problems: list[Problem]) -> None:
    trace = fgtrac.open(problems[1].path)
    alone, (plain,) = fgtrac.ensemble([trace]).explain("digits:345").toward[0], trace.explain("digits:345").toward
    assert [s.name for s in alone.proponents] == [s.name for s in plain.proponents]
    assert [s.score for s in alone.opponents] == pytest.approx([s.score for s in plain.opponents], rel=1e-5)


def test_keyed_ids_are_matched_by_name_through_the_vaults(tmp_path: Path) -> None:
    made = [scored_trace(tmp_path / str(n), seed=n, trace_id=bytes([n]) * 16, secret=bytes([n]) * 32) for n in (1, 2)]
    assert made[0].made.ids != made[1].made.ids
    told = fgtrac.ensemble([fgtrac.open(p.path) for p in made]).explain("digits:345", k=3)
    truth = mean_matrix(made, "test")[:, 5]
    assert [s.name for s in told.toward[0].proponents] == [made[0].names["train"][i] for i in np.argsort(-truth)[:3]]
    made[1].path.with_suffix(".vault").unlink()
    with pytest.raises(ValueError, match=r"340 training samples and .*run\.trace 340, of which 0 are the same"):
        fgtrac.ensemble([fgtrac.open(p.path) for p in made])


def test_traces_of_different_samples_are_refused_with_both_counts(problems: list[Problem], tmp_path: Path) -> None:
    other = scored_trace(tmp_path, trace_id=bytes([9]) * 16, extra=30)
    with pytest.raises(ValueError, match=r"340 training samples and .*run\.trace 330, of which 330 are the same"):
        fgtrac.ensemble([fgtrac.open(p.path) for p in (problems[0], other)])


def test_an_ensemble_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no traces"):
        fgtrac.ensemble([])
