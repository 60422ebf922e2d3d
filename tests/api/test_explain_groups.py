"""Targets are made ready in groups of a bounded size, and nobody sees it in the answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caches
import fgtrac
from caches import FACTORED, PROJECTED
from fgtrac.api.targets import Target, prepare_targets
from fgtrac.score import curvature, methods
from fgtrac.score.gradients import Layer
from fgtrac.score.kernel import Prepared, scores
from fgtrac.score.methods import Method
from softmax_traces import Problem, scored_trace

WIDE = Layer("wide", "factored", 40, 110, True)  # above the size whose Fisher matrix is inverted as it is
LAYERS = (FACTORED, PROJECTED, WIDE)
METHODS = [Method(), Method("tracin-cos"), Method("fisher"), Method("ekfac")]
SINGLES = [Target(f"{i}", {"validation": np.array([i])}, is_single=True) for i in range(60)]
MEANS = [Target(f"{i} and {i + 1}", {"validation": np.array([i, i + 1])}) for i in range(12)]


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return scored_trace(tmp_path_factory.mktemp("scored"))


def bytes_of(ready: list[Prepared]) -> int:
    """Of what is there for each target."""
    arrays = [v for p in ready for layer in p.layers for v in (layer.inputs, layer.deltas, layer.dense)]
    return sum(v.nbytes for v in arrays if v is not None)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("small", [0, 1 << 14])
def test_groups_stay_within_the_budget_and_their_scores_are_the_same(
    tmp_path: Path, method: Method, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature, "SMALL", small)
    cache, _held = caches.write_cache(tmp_path, LAYERS, n=300)
    assert cache.has("validation")
    targets = [*SINGLES[:30], *MEANS, *SINGLES[30:]]
    whole = np.empty((2, 300, len(targets)), dtype=np.float32)
    assert len(list(prepare_targets(cache, targets, method))) == 2
    for found, budget in zip(whole, (methods.GROUP_BYTES, 250_000), strict=True):
        monkeypatch.setattr(methods, "GROUP_BYTES", budget)
        groups = list(prepare_targets(cache, targets, method))
        assert sorted(i for numbers, _ in groups for i in numbers) == list(range(len(targets)))
        for numbers, ready in groups:
            assert {len(numbers)} == {len(p) for p in ready}
            assert bytes_of(ready) <= budget
            found[:, numbers] = scores(cache, ready, 0, 300)
    assert len(groups) >= 4
    assert np.abs(whole[0] - whole[1]).max() <= 2e-6 * np.abs(whole[0]).max()


def test_a_target_larger_than_the_budget_is_a_group_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, _held = caches.write_cache(tmp_path, LAYERS, n=300)
    assert cache.has("validation")
    monkeypatch.setattr(methods, "GROUP_BYTES", 1)
    groups = prepare_targets(cache, [*SINGLES[:3], *MEANS[:2]], Method())
    assert [numbers for numbers, _ in groups] == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize("method", ["tracin", "fisher", "ekfac"])
def test_an_answer_is_the_same_group_by_group(problem: Problem, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, seen = fgtrac.open(problem.path), []
    wanted = [f"digits:{row}" for row in range(300, 340)] + ["class:1", "class:2", "class:3"]
    once = trace.explain(*wanted, method=method, by="class")
    monkeypatch.setattr(methods, "GROUP_BYTES", 1500)
    told = trace.explain(*wanted, method=method, by="class", progress=lambda done, total: seen.append((done, total)))
    for one, other in zip(once.toward, told.toward, strict=True):
        assert one.target == other.target
        assert [s.name for s in one.proponents] == [s.name for s in other.proponents]
        np.testing.assert_allclose([s.score for s in one.opponents], [s.score for s in other.opponents], rtol=1e-4)
        np.testing.assert_allclose([s.sum for s in one.shares], [s.sum for s in other.shares], rtol=1e-3, atol=1e-4)
    assert len(seen) >= 5
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] == seen[0][1]


def test_a_matrix_of_many_groups_is_that_of_one(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, wanted = fgtrac.open(problem.path), [f"digits:{row}" for row in range(300, 340)]
    trace.write_scores(tmp_path / "one", *wanted, rows_a_part=100)
    monkeypatch.setattr(methods, "GROUP_BYTES", 4000)
    trace.write_scores(tmp_path / "many", *wanted, rows_a_part=100)
    files = sorted(p.name for p in (tmp_path / "one").glob("*.npy"))
    assert len(files) > 2
    for name in files:
        one, many = np.load(tmp_path / "one" / name), np.load(tmp_path / "many" / name)
        np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-6)
