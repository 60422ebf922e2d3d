"""Several models, optimizers and loaders in one loop: each update is of its own batch, or is said to be a guess."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fgtrac.api.run import Run, start_run
from update_truth import OTHERS, Loop, check, told

Read = Callable[[Path], Any]
STRAY = "an update followed no delivered batch"


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(start_run(tmp_path / "run", key=tmp_path / "key.pem", strict=True))


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def update(loop: Loop, model: nn.Module, optimizer: torch.optim.Optimizer, features: Any, number: int = 1) -> None:
    """Of one batch, which `loop` has seen."""
    optimizer.zero_grad()
    model(features).square().sum().backward()
    optimizer.step()
    loop.updated(number)


@pytest.mark.matrix("Updates", "two models, each on a loader of its own, in turn", attribution="exact")
@pytest.mark.parametrize("in_thread", [False, True])
def test_two_models_on_two_loaders_are_each_trained_on_their_own_batches(
    loop: Loop, log: Read, in_thread: bool
) -> None:
    models = loop.model, network()
    first, second = (loop.sgd(model) for model in models)

    def train_second(features: torch.Tensor) -> None:
        update(loop, models[1], second, loop.saw(features, OTHERS), 2)

    for features, others in zip(loop.batches(), loop.others_batches(), strict=True):
        update(loop, models[0], first, loop.saw(features))
        if in_thread:
            thread = threading.Thread(target=train_second, args=(others,))
            thread.start()
            thread.join()
        else:
            train_second(others)
    check(loop, log, "exact")


def test_a_batch_that_waits_while_two_models_are_trained_on_another_is_none_of_theirs(loop: Loop, log: Read) -> None:
    models = loop.model, network()
    optimizers = [loop.sgd(model) for model in models]
    for features, _others in zip(loop.batches(), loop.others_batches(), strict=True):
        for number, (model, optimizer) in enumerate(zip(models, optimizers, strict=True), 1):
            update(loop, model, optimizer, loop.saw(features), number)
    loop.run.close()
    said = log(loop.run.path)
    assert told(said) == loop.truth
    assert {use.attribution for use in said.uses() if use.status == "applied"} == {"exact"}
    assert said.kind("gap")  # a part of a model, which nobody sees, may have been given them


@pytest.mark.matrix("Updates", "several models on the same batch (ensembles, probes)", attribution="exact")
def test_each_model_of_an_ensemble_is_trained_on_every_batch(loop: Loop, log: Read) -> None:
    models = loop.model, network(), network()
    optimizers = [loop.sgd(model) for model in models]
    for features in loop.batches():
        for number, (model, optimizer) in enumerate(zip(models, optimizers, strict=True), 1):
            update(loop, model, optimizer, loop.saw(features), number)
    check(loop, log, "exact")


def test_each_model_of_an_ensemble_on_copies_is_recorded_and_said_to_be_a_guess(loop: Loop, log: Read) -> None:
    models = loop.model, network()
    optimizers = [loop.sgd(model) for model in models]
    for features in loop.batches():
        for number, (model, optimizer) in enumerate(zip(models, optimizers, strict=True), 1):
            update(loop, model, optimizer, loop.saw(features * 1), number)
    loop.run.close()
    said = log(loop.run.path)
    assert told(said) == loop.truth
    assert [gap["reason"] for gap in said.kind("gap")] == [STRAY]


def test_a_second_model_is_trained_on_a_batch_that_the_first_one_dropped(loop: Loop, log: Read) -> None:
    probe = network()
    optimizers = loop.sgd(), loop.sgd(probe)
    for number, features in enumerate(loop.batches()):
        optimizers[0].zero_grad()
        loop.model(features).square().sum().backward()
        if number != 1:
            optimizers[0].step()
            loop.saw(features)
            loop.updated(1)
        update(loop, probe, optimizers[1], loop.saw(features), 2)
    check(loop, log, "exact", discarded=(2, 3))


@pytest.mark.matrix("Updates", "a model for each fold, under accumulation", attribution="exact")
@pytest.mark.parametrize("every", [1, 2])
def test_every_model_of_a_cross_validation_is_trained_on_all_of_its_batches(loop: Loop, log: Read, every: int) -> None:
    loader = loop.batches()
    for fold in range(3):
        model = network()
        optimizer = loop.sgd(model)
        for _ in range(2):
            for number, features in enumerate(loader):
                model(loop.saw(features)).square().sum().backward()
                if number % every == every - 1:
                    optimizer.step()
                    optimizer.zero_grad()
                    loop.updated(fold + 1)
    check(loop, log, "exact")


class Heads(nn.Module):
    """Two heads on one body."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.heads = nn.Linear(4, 4), nn.ModuleList(nn.Linear(4, 2) for _ in range(2))

    def forward(self, features: torch.Tensor, head: int) -> torch.Tensor:
        out: torch.Tensor = self.heads[head](self.body(features))
        return out


@pytest.mark.matrix("Updates", "heads that get gradients later", attribution="exact")
@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_head_that_gets_gradients_later_is_no_update_by_hand(loop: Loop, log: Read, by_epoch: bool) -> None:
    model, loader = Heads(), loop.batches()
    optimizer = loop.sgd(model)
    for epoch in range(2):
        for number, features in enumerate(loader):
            optimizer.zero_grad()
            model(loop.saw(features), epoch if by_epoch else number % 2).square().sum().backward()
            optimizer.step()
            loop.updated()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "gradients of a copy of the model, put into .grad", attribution="sole")
@pytest.mark.parametrize("is_kept", [False, True])
def test_gradients_that_a_copy_of_the_model_gives_are_of_its_batch(loop: Loop, log: Read, is_kept: bool) -> None:
    optimizer, kept = loop.sgd(), copy.deepcopy(loop.model)
    for features in loop.batches():
        worker = kept if is_kept else copy.deepcopy(loop.model)
        worker.load_state_dict(loop.model.state_dict())
        worker.zero_grad()
        worker(loop.saw(features)).square().sum().backward()
        for weight, theirs in zip(loop.model.parameters(), worker.parameters(), strict=True):
            weight.grad = None if theirs.grad is None else theirs.grad.clone()
        optimizer.step()
        loop.updated()
    check(loop, log, "sole")


@pytest.mark.matrix("Updates", "a bfloat16 model with float32 master weights", attribution="sole")
def test_master_weights_are_updated_by_the_batches_of_the_model_in_half_precision(loop: Loop, log: Read) -> None:
    model = copy.deepcopy(loop.model).bfloat16()
    masters = [weight.detach().float().requires_grad_() for weight in model.parameters()]
    optimizer = torch.optim.AdamW(masters)
    for features in loop.batches():
        model.zero_grad()
        model(loop.saw(features).bfloat16()).float().square().sum().backward()
        for master, weight in zip(masters, model.parameters(), strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
        optimizer.step()
        loop.updated()
        with torch.no_grad():
            for master, weight in zip(masters, model.parameters(), strict=True):
                weight.copy_(master)
    check(loop, log, "sole")


def test_an_optimizer_of_what_nobody_delivered_is_no_use_and_a_gap_says_so(run: Run, log: Read) -> None:
    loop, other = Loop(run), network()
    optimizers = loop.sgd(), loop.sgd(other)
    for features in loop.batches():
        update(loop, loop.model, optimizers[0], loop.saw(features))
        other(torch.ones(1, 4)).sum().backward()
        optimizers[1].step()
    loop.run.close()
    said = log(loop.run.path)
    assert told(said) == loop.truth
    assert [gap["reason"] for gap in said.kind("gap")] == [STRAY]
