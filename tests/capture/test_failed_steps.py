"""Steps that raise an error or move nothing: the batch whose gradient is thrown away then is in no update."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from fgtrac.api.run import Run
from loader_truth import Read
from update_truth import Loop, check

TO_NONE = pytest.mark.parametrize("to_none", [True, False])


@pytest.fixture
def loop(run: Run) -> Loop:
    return Loop(run)


def fail_at(optimizer: torch.optim.Optimizer, failing: int) -> None:
    """Have a step fail, as one that needs more memory than there is."""
    steps = iter(range(100))

    def fail(*_: Any) -> None:
        if next(steps) == failing:
            raise torch.OutOfMemoryError("no more memory")

    optimizer.register_step_pre_hook(fail)


@pytest.mark.matrix("Updates", "a step that raises an error", attribution="exact")
@TO_NONE
@pytest.mark.parametrize("failing", [0, 2])
def test_a_batch_whose_step_failed_is_in_no_later_update(loop: Loop, log: Read, failing: int, to_none: bool) -> None:
    optimizer = torch.optim.Adam(loop.model.parameters())
    fail_at(optimizer, failing)
    for features in loop.batches():
        loop.model(loop.saw(features)).square().sum().backward()
        try:
            optimizer.step()
        except torch.OutOfMemoryError:
            loop.forgot()
        else:
            loop.updated()
        optimizer.zero_grad(set_to_none=to_none)
    check(loop, log, "exact", discarded=(2 * failing, 2 * failing + 1))


def test_a_batch_whose_failed_step_is_made_again_is_used(loop: Loop, log: Read) -> None:
    optimizer = loop.sgd()
    fail_at(optimizer, 1)
    for features in loop.batches():
        loop.model(loop.saw(features)).square().sum().backward()
        try:
            optimizer.step()
        except torch.OutOfMemoryError:
            optimizer.step()
        loop.updated()
        optimizer.zero_grad()
    check(loop, log, "exact")


def evaluate(loop: Loop, optimizer: torch.optim.Optimizer, features: torch.Tensor, to_none: bool, fails: bool) -> Any:
    optimizer.zero_grad(set_to_none=to_none)
    loss = loop.model(features).square().sum()
    loss.backward()
    if fails:
        raise FloatingPointError
    return loss


@pytest.mark.matrix("Updates", "a closure that raises an error", attribution="exact")
@TO_NONE
def test_a_batch_whose_closure_failed_is_in_no_later_update(loop: Loop, log: Read, to_none: bool) -> None:
    optimizer = torch.optim.LBFGS(loop.model.parameters(), max_iter=2)
    for number, features in enumerate(loop.batches()):
        try:
            optimizer.step(partial(evaluate, loop, optimizer, features, to_none, number == 1))
        except FloatingPointError:
            continue
        loop.saw(features)
        loop.updated()
    check(loop, log, "exact", discarded=(2, 3))


def test_gradients_zeroed_behind_a_failed_closure_are_thrown_away_in_a_plain_step(loop: Loop, log: Read) -> None:
    optimizer = loop.sgd()
    for number, features in enumerate(loop.batches()):
        try:
            closure = partial(evaluate, loop, optimizer, features, False, number == 1)
            optimizer.step(closure) if number < 2 else (closure(), optimizer.step())
        except FloatingPointError:
            continue
        loop.saw(features)
        loop.updated()
    check(loop, log, "exact", discarded=(2, 3))


@pytest.mark.matrix("Updates", "LBFGS that finds nothing to move", attribution="exact")
@TO_NONE
def test_a_batch_with_which_lbfgs_moves_nothing_is_in_no_later_update(loop: Loop, log: Read, to_none: bool) -> None:
    optimizer = torch.optim.LBFGS(loop.model.parameters(), max_iter=2, tolerance_grad=1e-3)
    for number, features in enumerate(loop.batches()):

        def closure(features: torch.Tensor = features, scale: float = 1e-9 if number == 1 else 1.0) -> Any:
            optimizer.zero_grad(set_to_none=to_none)
            loss = loop.model(features).square().sum() * scale
            loss.backward()
            return loss

        optimizer.step(closure)
        if number != 1:
            loop.saw(features)
            loop.updated()
    check(loop, log, "exact", discarded=(2, 3))
