"""The linear datamodeling score: its value, its error, and a measurement that is interrupted."""

from __future__ import annotations

import linecache
import re
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from fgtrac.errors import FormatError, ScoreError
from fgtrac.score.fidelity import gain, lds, leave_some_out, measure, predict, ranks, spearman
from fgtrac.score.functions import identify

N, M = 40, 6
TARGETS = [f"digits:{row}" for row in range(M)]


def additive(noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, Callable[[np.ndarray, int], np.ndarray]]:
    """Scores (n, m), and a training whose losses fall by exactly these, up to noise of each retraining."""
    scores = np.random.default_rng(seed).standard_normal((N, M))

    def retrain(rows: np.ndarray, using: int) -> np.ndarray:
        shaken = np.random.default_rng((using, *rows.tolist())).standard_normal(M)
        return 100 - scores[rows].sum(axis=0) + noise * shaken

    return scores, retrain


def asked(retrain: Any, scores: Any, **options: Any) -> Any:
    return measure(retrain, np.arange(N), TARGETS, scores, **({"subsets": 16} | options))


# -- ranks and correlation ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_equal_values_share_the_mean_of_their_ranks(values: list[int]) -> None:
    column = np.array(values, dtype=np.float64)[:, None]
    assert np.array_equal(ranks(column)[:, 0], rankdata(values) - 1)


def test_the_correlation_of_ranks_is_scipys_also_with_ties() -> None:
    draw = np.random.default_rng(1)
    a, b = draw.integers(0, 9, (50, 8)), draw.standard_normal((50, 8))
    expected = [spearmanr(a[:, j], b[:, j]).statistic for j in range(8)]
    assert np.allclose(spearman(a, b), expected, atol=1e-12)


def test_a_prediction_that_never_varies_counts_as_no_correlation() -> None:
    actual = np.random.default_rng(2).standard_normal((12, 2))
    predicted = np.stack([actual[:, 0], np.ones(12)], axis=1)
    assert lds(predicted, actual).value == pytest.approx(0.5)


def test_a_target_whose_loss_never_varies_is_left_out_and_not_counted() -> None:
    actual = np.random.default_rng(2).standard_normal((12, 3))
    actual[:, 1] = 7
    found = lds(np.array(actual), actual)
    assert (found.value, found.tests, found.subsets) == (pytest.approx(1.0), 2, 12)


# -- the error ------------------------------------------------------------------------------------------------------


def simulated(seed: int, parts: int = 32, tests: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes with a part's effect that all tests share, a prediction, and a worse one."""
    draw = np.random.default_rng(seed)
    shared, own = draw.standard_normal((parts, 1)), draw.standard_normal((parts, tests))
    actual = shared + own
    good, bad = (actual + width * draw.standard_normal((parts, tests)) + draw.standard_normal((parts, 1))
                 for width in (1.0, 2.0))  # fmt: skip
    return good, bad, actual


def test_the_error_covers_the_spread_of_the_score_over_other_parts_and_tests_and_overstates_it_mildly() -> None:
    found = [lds(good, actual) for good, _, actual in map(simulated, range(60))]
    spread = np.std([f.value for f in found], ddof=1)
    told = np.mean([f.standard_error for f in found])
    assert 0.8 * spread < told < 1.6 * spread
    over_tests_only = np.mean(
        [spearman(g, a).std(ddof=1) / np.sqrt(a.shape[1]) for g, _, a in map(simulated, range(9))]
    )
    assert told > 1.5 * over_tests_only  # which would be dishonest here: all tests share the parts


def test_the_gain_is_the_difference_with_the_error_of_the_pair() -> None:
    good, bad, actual = simulated(5)
    found = gain(good, bad, actual)
    assert found.value == pytest.approx(lds(good, actual).value - lds(bad, actual).value)
    assert found.lower95 == pytest.approx(found.value - 1.96 * found.standard_error)
    same = gain(good, good, actual)
    assert (same.value, same.standard_error) == (0, 0)


# -- parts ----------------------------------------------------------------------------------------------------------


def test_parts_are_seeded_halves_and_more_of_them_begin_with_the_same() -> None:
    parts = leave_some_out(11, 5, seed=3)
    assert parts.shape == (5, 6)
    assert all(len(np.unique(part)) == 6 and part.tolist() == sorted(part) for part in parts)
    assert np.array_equal(leave_some_out(11, 9, seed=3)[:5], parts)
    assert not np.array_equal(leave_some_out(11, 5, seed=4), parts)


def test_predictions_are_sums_of_scores_over_parts() -> None:
    scores, parts = np.random.default_rng(0).standard_normal((11, 2)), leave_some_out(11, 4)
    expected = [[sum(scores[i, j] for i in part) for j in range(2)] for part in parts.tolist()]
    assert np.allclose(predict(scores, parts), expected)


# -- measuring ------------------------------------------------------------------------------------------------------


def test_scores_that_are_the_effects_reach_one_and_their_opposite_minus_one() -> None:
    scores, retrain = additive()
    assert asked(retrain, scores).value == pytest.approx(1)
    assert asked(retrain, -scores).value == pytest.approx(-1)
    assert asked(retrain, scores).standard_error == pytest.approx(0, abs=1e-9)


def test_rows_are_given_to_the_training_function_under_the_callers_own_names() -> None:
    scores, retrain = additive()
    names = 1000 + 3 * np.arange(N)
    found = measure(lambda rows, seed: retrain((rows - 1000) // 3, seed), names, TARGETS, scores, subsets=8)
    assert found.value == pytest.approx(1)


def test_more_seeds_average_the_noise_of_retraining_away() -> None:
    scores, retrain = additive(noise=5.0)
    one, many = asked(retrain, scores, subsets=32), asked(retrain, scores, subsets=32, seeds=range(1, 9))
    assert many.value > one.value + 0.1


def test_an_interrupted_measurement_goes_on_and_comes_to_the_same(tmp_path: Path) -> None:
    scores, retrain = additive(noise=1.0)
    path, calls, steps = tmp_path / "retrainings", [], []

    def interrupted(rows: np.ndarray, seed: int) -> np.ndarray:
        calls.append(seed)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return retrain(rows, seed)

    with pytest.raises(KeyboardInterrupt):
        asked(interrupted, scores, seeds=(1, 2), resume_path=path)
    found = asked(interrupted, scores, seeds=(1, 2), resume_path=path, progress=lambda *step: steps.append(step))
    assert len(calls) == 20 + 32 - 19
    assert steps[-1] == (32, 32)
    assert found == asked(retrain, scores, seeds=(1, 2))


def test_other_scores_and_more_subsets_use_what_is_retrained_already(tmp_path: Path) -> None:
    scores, retrain = additive(noise=1.0)
    path = tmp_path / "retrainings"
    asked(retrain, scores, resume_path=path)

    def more(rows: np.ndarray, seed: int) -> np.ndarray:
        asked_for.append(seed)
        return retrain(rows, seed)

    asked_for: list[int] = []
    asked(more, -scores, subsets=20, resume_path=path, function=identify(retrain))
    assert len(asked_for) == 4


def test_wherever_the_file_was_cut_the_measurement_comes_to_the_same(tmp_path: Path) -> None:
    scores, retrain = additive(noise=1.0)
    path = tmp_path / "retrainings"
    expected = asked(retrain, scores, subsets=4, resume_path=path)
    whole = path.read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        assert asked(retrain, scores, subsets=4, resume_path=path) == expected
        assert path.read_bytes() == whole


def test_a_damaged_line_is_named_and_never_used(tmp_path: Path) -> None:
    scores, retrain = additive()
    path = tmp_path / "retrainings"
    asked(retrain, scores, resume_path=path)
    data = bytearray(path.read_bytes())
    data[data.index(b"losses", len(data) // 2) + 12] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"line 1?[0-9] of .* is damaged"):
        asked(retrain, scores, resume_path=path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("other", [{"seed": 5}, {"keep": 0.25}])
def test_a_file_of_other_parts_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    scores, retrain = additive()
    asked(retrain, scores, resume_path=tmp_path / "retrainings")
    with pytest.raises(ValueError, match="other samples, targets or parts"):
        asked(retrain, scores, resume_path=tmp_path / "retrainings", **other)


def test_a_file_of_another_function_is_refused_with_both_named(tmp_path: Path) -> None:
    scores, retrain = additive()
    path = tmp_path / "retrainings"
    asked(retrain, scores, resume_path=path)
    before = path.read_bytes()

    def another(rows: np.ndarray, seed: int) -> np.ndarray:
        raise AssertionError("it must not be trained")

    names = rf"{re.escape(str(identify(retrain)))}, and this is {re.escape(str(identify(another)))}"
    with pytest.raises(ValueError, match=rf"{names}; name another --retrainings file"):
        asked(another, scores, resume_path=path)
    assert path.read_bytes() == before
    path.write_bytes(b"")
    with pytest.raises(AssertionError, match="must not be trained"):
        asked(another, scores, resume_path=path)
    with pytest.raises(ValueError, match="other samples, targets or parts"):
        asked(another, scores, resume_path=path, about="other samples")


def test_a_function_is_told_by_its_file_its_name_and_the_plain_values_bound_to_it(tmp_path: Path) -> None:
    def made(text: str) -> Any:
        (tmp_path / "train.py").write_text(text)
        linecache.clearcache()
        return runpy.run_path(str(tmp_path / "train.py"))

    text = "def train(rows, seed):\n    return [rate]\nrate = 0.1\n"
    first, again = made(text)["train"], made(text)["train"]
    assert identify(first) == identify(again)
    faster = identify(made(text.replace("0.1", "0.2"))["train"])
    assert faster.name == identify(first).name == "train"
    (tmp_path / "train.py").write_text(text)
    assert identify(first) != faster
    assert identify(partial(first, seed=1)) != identify(partial(first, seed=2))
    assert identify(Trained(0.1)) == identify(Trained(0.1)) != identify(Trained(0.2))
    assert identify(Trained(0.1).train) == identify(Trained(0.1).train) != identify(Trained(0.2).train)
    assert identify(Trained(0.1)).name == "Trained.__call__"
    codes = [eval(f"lambda rows, seed: rows + {n}") for n in (1, 1, 2)]  # no source file
    assert identify(codes[0]) == identify(codes[1]) != identify(codes[2])
    assert identify(max).name == "max"


class Trained:
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, rows: Any, seed: int) -> Any:
        return self.rate

    train = __call__


def test_a_training_that_diverges_is_an_error_with_a_count_and_is_not_kept(tmp_path: Path) -> None:
    scores, _ = additive()
    losses = np.ones(M)
    losses[[2, 5]] = np.nan, np.inf
    with pytest.raises(ScoreError, match="part 0 with seed 1 has 2 losses that are not finite, digits:2 the first"):
        asked(lambda rows, seed: losses, scores, resume_path=tmp_path / "retrainings")
    assert (tmp_path / "retrainings").read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": np.ones((N, M + 1))}, "for 40 rows and 6 targets"),
        ({"retrain": lambda rows, seed: np.ones(M + 1)}, r"shape \(7,\) for 6 targets"),
        ({"subsets": 3}, "3 subsets rank nothing"),
        ({"keep": 1.0}, "keeps 40; a part has some of them and not all"),
        ({"seeds": (1, 1)}, "each once"),
        ({"retrain": lambda rows, seed: np.ones(M)}, "nothing to rank"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(change: dict[str, Any], words: str) -> None:
    scores, retrain = additive()
    with pytest.raises(ValueError, match=words):
        asked(**({"retrain": retrain, "scores": scores} | change))


def test_outcomes_that_are_not_finite_are_refused_with_a_count() -> None:
    actual = np.random.default_rng(0).standard_normal((6, 2))
    predicted = np.array(actual)
    predicted[1, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 12 predictions are not finite"):
        lds(predicted, actual)
