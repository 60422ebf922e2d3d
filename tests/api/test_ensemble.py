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
    with pytest.raises(ValueError, match=r"run\.vault is missing: without it nobody can tell which"):
        fgtrac.ensemble([fgtrac.open(p.path) for p in made])


def test_traces_of_different_samples_are_refused_with_both_counts(problems: list[Problem], tmp_path: Path) -> None:
    other = scored_trace(tmp_path, trace_id=bytes([9]) * 16, extra=30)
    with pytest.raises(ValueError, match=r"340 training samples and .*run\.trace 330, of which 330 are the same"):
        fgtrac.ensemble([fgtrac.open(p.path) for p in (problems[0], other)])


def test_an_ensemble_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no traces"):
        fgtrac.ensemble([])


def test_checkpoints_groups_and_the_free_baseline_are_those_of_the_traces(problems: list[Problem]) -> None:
    together = fgtrac.ensemble([fgtrac.open(p.path) for p in problems])
    some = together.explain("digits:345", checkpoints=[10, 30], by="class", method="tracin")
    each = together.explain("digits:345", checkpoints=[[10, 30], [30, 10], [10, 30]], by="class")
    assert some == each
    singles = [fgtrac.open(p.path).explain("digits:345", k=340, checkpoints=[10, 30]) for p in problems]
    (one,), first = some.toward, some.toward[0].proponents[0]
    scores = [next(s.score for s in (*t.toward[0].proponents, *t.toward[0].opponents) if s.name == first.name)
              for t in singles]  # fmt: skip
    assert list(first.trace) == pytest.approx(scores, rel=1e-4)
    every = together.explain("digits:345", k=340, checkpoints=[10, 30]).toward[0]
    for share in one.shares:
        mine = [s.score for s in (*every.proponents, *every.opponents) if f"class {s.label}" == share.group]
        assert share.sum == pytest.approx(sum(mine), rel=1e-3, abs=1e-4)
    losses = []
    for p in problems:
        order = [p.names["train"].index(name) for name in problems[0].names["train"]]
        losses.append(np.mean([p.losses[k, "train"] for k in (0, 2)], axis=0)[order])
    mean = np.mean(losses, axis=0)
    rows = np.flatnonzero(problems[0].labels["train"] == one.label)
    assert one.baseline[0].name == problems[0].names["train"][rows[np.argmax(mean[rows])]]
    assert one.baseline[0].score == pytest.approx(mean[rows].max(), rel=1e-4)
    assert "the checkpoints of steps 10, 30, the mean over 3 traces; fidelity not measured" in str(some)
    mixed = together.explain("digits:345", checkpoints=[[10], None, [20]])
    assert mixed.steps_of_traces == ((10,), (10, 20, 30), (20,))
    assert "steps 10 and of 10, 20, 30 and of 20" in mixed.basis


def test_steps_that_do_not_fit_the_traces_are_refused(problems: list[Problem]) -> None:
    together = fgtrac.ensemble([fgtrac.open(p.path) for p in problems])
    with pytest.raises(ValueError, match=r"2 items for 3 traces; give steps, or a list a trace"):
        together.explain("digits:345", checkpoints=[[10], [20]])
    with pytest.raises(ValueError, match=r"run\.trace: no state with factors is kept at step 11"):
        together.explain("digits:345", checkpoints=[11])
    with pytest.raises(ValueError, match="belong to a batch of unseen data"):
        together.explain("digits:345", loss=abs)
