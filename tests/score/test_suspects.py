"""Rows that may be mislabelled, and rows that are nearly the same, each beside the free baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fgtrac.score import suspects
from fgtrac.score.gradients import Gradients, Layer
from fgtrac.score.suspects import auc, near_duplicates, precision_at, rank_suspects

LAYER = Layer("output", "factored", 5, 3, True)


def drawn(n: int = 400, wrong: int = 40, shift: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are higher by `shift` where the label is wrong."""
    known = np.arange(n) < wrong
    return np.random.default_rng(seed).standard_normal(n) + shift * known, known


def test_the_auc_is_scikit_learns_also_with_ties() -> None:
    scores, known = drawn()
    for values in (scores, np.round(scores)):
        assert auc(values, known) == pytest.approx(roc_auc_score(known, values))


def test_the_precision_counts_wrong_rows_among_the_highest_and_splits_ties_evenly() -> None:
    known = np.array([1, 0, 1, 0, 0], dtype=bool)
    assert precision_at([5, 4, 3, 2, 1], known) == 0.5
    assert precision_at([5, 4, 3, 2, 1], known, 3) == pytest.approx(2 / 3)
    assert precision_at([9, 7, 7, 7, 1], known) == pytest.approx((1 + 1 / 3) / 2)
    assert precision_at(np.zeros(5), known) == pytest.approx(2 / 5)


def test_without_known_labels_nobody_knows_which_measure_is_better() -> None:
    first, _ = drawn(shift=3)
    found = rank_suspects(first, -first, 5)
    assert (found.better, found.by, found.found) == (None, "mean loss", {})
    assert "nobody knows" in found.words
    assert found.agreement == pytest.approx(-1)
    assert found.rows.tolist() == np.argsort(first)[:5].tolist()
    assert found.mean_loss.tolist() == pytest.approx(-np.sort(first)[:5])


def test_the_better_measure_is_named_and_ranks_where_the_difference_is_more_than_chance() -> None:
    (good, known), (bad, _) = drawn(shift=3), drawn(shift=1, seed=1)
    found = rank_suspects(good, bad, 40, wrong=known)
    assert (found.better, found.by) == ("self-influence", "self-influence")
    assert found.found["self-influence"].auc == pytest.approx(roc_auc_score(known, np.float32(good)))
    assert known[found.rows].mean() == found.found["self-influence"].precision
    assert rank_suspects(bad, good, 40, wrong=known).better == "mean loss"
    assert rank_suspects(good, bad, 40, wrong=known, by="mean loss").by == "mean loss"


def test_of_two_measures_that_are_equally_good_none_is_named_better() -> None:
    named = []
    for seed in range(100):
        (first, known), (second, _) = drawn(n=200, seed=2 * seed), drawn(n=200, seed=2 * seed + 1)
        named.append(rank_suspects(first, second, 1, wrong=known).better is not None)
    assert np.mean(named) < 0.15


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean_loss": np.ones(3)}, "both have one number a row"),
        ({"self_influence": np.array([1, np.nan, 2, 3])}, "1 of 4 values of self-influence are not finite"),
        ({"k": 0}, "ask for at least 1"),
        ({"by": "luck"}, "by self-influence or mean loss"),
        ({"wrong": np.zeros(4, dtype=bool)}, "0 of 4 labels are wrong; some and not all"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_one_line(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rank_suspects(**({"self_influence": np.ones(4), "mean_loss": np.ones(4), "k": 2} | change))


# -- near duplicates ------------------------------------------------------------------------------------------------


def rows(n: int, form: str = "factored") -> list[Gradients]:
    """Gradients of two layers; row 30 is nearly row 7, and row 40 is row 9 with another label."""
    draw = np.random.default_rng(4)
    out = []
    for name in "ab":
        inputs = draw.standard_normal((n, 5)).astype(np.float32)
        deltas = draw.standard_normal((n, 3)).astype(np.float32)
        inputs[30], deltas[30] = inputs[7] + 0.01, 2 * deltas[7]
        inputs[40], deltas[40] = 3 * inputs[9], -deltas[9]
        layer = Layer(name, form, 5, 3, True)
        whole = Gradients(layer, inputs, deltas)
        out.append(whole if form == "factored" else Gradients(layer, dense=whole.whole()))
    return out


def reading(parts: Sequence[Gradients]) -> Any:
    return lambda start, stop: tuple(part.rows(slice(start, stop)) for part in parts)


@pytest.mark.parametrize("form", ["factored", "dense"])
@pytest.mark.parametrize("block", [7, 1024])
def test_the_most_similar_pairs_are_those_of_the_whole_matrix(
    form: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "BLOCK", block)
    parts = rows(60, form)
    whole = np.concatenate([part.whole() for part in parts], axis=1)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    cosines = whole @ whole.T
    left, right = np.triu_indices(60, 1)
    best = np.argsort(-cosines[left, right], kind="stable")[:20]
    found = near_duplicates(reading(parts), 60, 20)
    assert found.rows.tolist() == np.stack([left[best], right[best]], axis=1).tolist()
    assert np.allclose(found.gradients, cosines[left[best], right[best]], atol=1e-5)
    assert found.rows[0].tolist() == [7, 30]
    assert np.isnan(found.inputs).all() == (form == "dense")


def test_the_baseline_finds_what_gradients_do_not_the_same_input_with_another_label() -> None:
    parts = rows(60)
    steps: list[tuple[int, int]] = []
    found = near_duplicates(reading(parts), 60, 2, by="inputs", progress=lambda *step: steps.append(step))
    assert sorted(found.rows.tolist()) == [[7, 30], [9, 40]]
    assert found.inputs == pytest.approx(np.ones(2), abs=1e-4)
    assert found.gradients[found.rows[:, 0] == 9][0] < -0.8
    assert steps == [(1, 1)]


def test_rows_without_a_gradient_are_like_no_other_and_few_rows_have_few_pairs() -> None:
    parts = [Gradients(LAYER, np.ones((3, 5), dtype=np.float32), np.zeros((3, 3), dtype=np.float32))]
    found = near_duplicates(reading(parts), 3, 10)
    assert found.rows.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert found.gradients.tolist() == [0, 0, 0]
    assert near_duplicates(reading(parts), 1, 10).rows.shape == (0, 2)


def test_pairs_by_inputs_are_refused_where_inputs_are_not_kept() -> None:
    with pytest.raises(ValueError, match="inputs are not kept"):
        near_duplicates(reading(rows(60, "dense")), 60, 2, by="inputs")
    with pytest.raises(ValueError, match="ask for at least 1"):
        near_duplicates(reading(rows(60)), 60, 0)
