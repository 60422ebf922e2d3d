"""Recorded modality weights computed again from the committed states, by what the verifier gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fgtrac
from fgtrac.api.audit import Demand
from fgtrac.api.reweigh import weights_demand
from fgtrac.demo.forge import find, reseal_with
from fgtrac.verify.report import Finding, Report, Verdict

MODALITIES = ("image", "words")


def weigher() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))


def weigh(run: Any, problem: Any, scale: float = 1.0, **options: Any) -> None:
    def weights(model: nn.Module) -> torch.Tensor:
        return (scale * model(problem.train.tensors[0]))[:, :2].softmax(1)

    run.attention_with(**({"weights": weights, "data": problem.train, "modalities": MODALITIES} | options))


@pytest.fixture
def weighed(problem: Any) -> Any:
    with problem.start(keep="budget:2") as run:
        weigh(run, problem)
        problem.fit(run, weigher())
    return problem


def verified(problem: Any, *demands: Demand) -> Report:
    key = problem.signing_key.public_key().public_bytes_raw().hex()
    return fgtrac.open(problem.trace.path, key=key).verify(demands=demands)


def checked(problem: Any, function: Callable[[Any], Any] | None, count: int = 1_000) -> Finding:
    report = verified(problem, weights_demand(count, 1, function))
    (finding,) = [one for one in report.findings if one.check == "modality-weights"]
    return finding


def given(problem: Any, **options: Any) -> Callable[[Any], nn.Module]:
    def function(run: Any) -> nn.Module:
        weigh(run, problem, **options)
        return weigher()

    return function


def test_rows_of_all_checkpoints_are_what_their_states_give_also_of_dropped_ones(weighed: Any) -> None:
    assert [event["kept"] for event in weighed.events("checkpoint")].count(False) == 1  # displaced
    found = checked(weighed, given(weighed))
    assert found.verdict is Verdict.HOLDS, found
    assert found.words.startswith("270 of 270 rows, chosen by seed 1, are what the committed states and what was given")
    assert checked(weighed, given(weighed), 20).words.startswith("20 of 270 rows")


def test_a_row_that_the_state_does_not_give_is_refuted(weighed: Any) -> None:
    number, event = find(weighed.trace, "attention")
    weights = event["weights"].copy()
    weights[14:16] += (0.01, -0.01)
    reseal_with(weighed.trace, number, {**event, "weights": weights}, weighed.signing_key)
    found = checked(weighed, given(weighed))
    assert found.verdict is Verdict.REFUTED
    name = weighed.events("samples")[0]["ids"][32 * int(event["ordinals"][7]) :][:32].hex()
    assert (
        f"entry {number} (attention) says image {weights[14]:.9g}, words {weights[15]:.9g} of sample {name}"
        in found.words
    )
    assert "make image" in found.words


def test_what_low_precision_may_round_cannot_be_told(weighed: Any) -> None:
    found = checked(weighed, given(weighed, scale=1.0005))
    assert found.verdict is Verdict.CANNOT_TELL
    assert "more than is taken for float32's rounding, and no more than rounding may make" in found.words


class Sharp(nn.Module):
    """Its weights are equal, and the shares of two numbers so large that rounding may turn them into anything."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.gate = weigher(), nn.Parameter(torch.full((2,), 1e6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


def test_invented_rows_do_not_hold_where_rounding_may_make_any(problem: Any) -> None:
    def shares(model: Any) -> torch.Tensor:
        return model.gate.softmax(0).expand(len(problem.train), 2)

    def again(run: Any) -> nn.Module:
        weigh(run, problem, weights=shares)
        return Sharp()

    with problem.start(keep="budget:2") as run:
        weigh(run, problem, weights=shares)
        problem.fit(run, Sharp())
    assert checked(problem, again).verdict is Verdict.HOLDS
    number, event = find(problem.trace, "attention")
    invented = event["weights"].copy()
    invented[:2] = 1, 0
    reseal_with(problem.trace, number, {**event, "weights": invented}, problem.signing_key)
    found = checked(problem, again)
    assert found.verdict is Verdict.CANNOT_TELL
    assert "says image 1, words 0 of sample" in found.words


def no_weights(run: Any) -> nn.Module:
    return weigher()


def failing(run: Any, problem: Any) -> nn.Module:
    weigh(run, problem, weights=lambda model: 1 / 0)
    return weigher()


def smaller(run: Any, problem: Any) -> nn.Module:
    weigh(run, problem)
    return nn.Linear(8, 2)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda problem: None, "name what gives the data and the model, --with FILE.py:FUNCTION"),
        (lambda problem: no_weights, "let the function call attention_with() as the training did"),
        (
            lambda problem: lambda run: failing(run, problem),
            "no weights were given: ZeroDivisionError: division by zero",
        ),
        (lambda problem: lambda run: smaller(run, problem), "is of another architecture: "),
        (lambda problem: lambda run: weigh(run, problem), "the function returned NoneType; return the model"),
        (
            lambda problem: given(problem, modalities=["words", "image"]),
            "weighs image, words, and what was given words",
        ),
        (lambda problem: given(problem, data=problem.test), "the trace has other samples as 'TensorDataset'"),
        (
            lambda problem: given(
                problem, positions=range(30), weights=lambda m: m(problem.train.tensors[0])[:30, :2].softmax(1)
            ),
            "is not among the data given",
        ),
    ],
)
def test_what_was_not_made_anew_cannot_be_told(weighed: Any, function: Callable[[Any], Any], words: str) -> None:
    found = checked(weighed, function(weighed))
    assert found.verdict is Verdict.CANNOT_TELL
    assert words in found.words


def test_a_trace_without_weights_has_none_to_compute_and_no_note_of_it(problem: Any) -> None:
    with problem.start() as run:
        problem.fit(run, weigher(), epochs=1)
    assert checked(problem, given(problem)).words.startswith("no entry records modality weights")
    assert not [note for note in verified(problem).notes if "modality weights" in note]


def test_that_it_was_not_asked_for_is_noted(weighed: Any) -> None:
    (note,) = [n for n in verified(weighed).notes if "modality weights" in n]
    assert note.endswith("--attention N --with FILE.py:FUNCTION")


def test_a_count_or_seed_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="0 rows of modality weights are none; ask for at least 1"):
        weights_demand(0)
    with pytest.raises(ValueError, match="the seed -1 is below 0"):
        weights_demand(1, -1)
