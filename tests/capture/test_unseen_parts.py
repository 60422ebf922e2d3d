"""Updates of more than what was recognised: a batch that may be part of one is not said to be never used."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fgtrac.api.run import Run
from update_truth import OTHERS, Loop, check, told

Read = Callable[[Path], Any]
LEFT = "updates were given to batches by their order, and some are left"
STRAY = "an update followed no delivered batch"


@pytest.fixture
def loop(run: Run) -> Loop:
    return Loop(run)


def said_by(loop: Loop, log: Read) -> tuple[Any, list[str]]:
    """The log, and its gaps' reasons."""
    loop.run.close()
    said = log(loop.run.path)
    return said, [gap["reason"] for gap in said.kind("gap")]


def step(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def squares(output: torch.Tensor) -> torch.Tensor:
    return output.square().sum()


@pytest.mark.matrix(
    "Updates", "a batch and a copy of another in one loss (FixMatch)", note="the copied: unapplied, a gap"
)
def test_a_copy_beside_a_recognised_batch_in_one_loss_leaves_its_batch_in_doubt(loop: Loop, log: Read) -> None:
    optimizer = loop.sgd()
    for features, others in zip(loop.batches(), loop.others_batches(), strict=True):
        step(squares(loop.model(loop.saw(features))) + squares(loop.model(others + 0.1)), optimizer)
        loop.updated()
    said, gaps = said_by(loop, log)
    assert told(said) == loop.truth
    assert {use.dataset for use in said.uses() if use.status == "unapplied"} == {OTHERS}
    assert gaps == [LEFT]


class Autoencoder(nn.Module):
    """Its parts are called by themselves, too."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head, self.decoder = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.encoder(features))
        return out

    def rebuild(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.decoder(self.encoder(features)) - features
        return out


@pytest.mark.matrix("Updates", "parts of a model called by themselves", attribution="exact")
@pytest.mark.parametrize("how", ["one loss", "two backward passes", "two updates"])
def test_a_part_of_a_model_that_is_called_by_itself_is_recognised(loop: Loop, log: Read, how: str) -> None:
    model = Autoencoder()
    optimizer = loop.sgd(model)
    for features, others in zip(loop.batches(), loop.others_batches(), strict=True):
        loop.saw(features)
        if how == "two updates":
            step(squares(model(features)), optimizer)
            loop.updated()
            loop.saw(others, OTHERS)
            step(squares(model.rebuild(others)), optimizer)
        elif how == "one loss":
            loop.saw(others, OTHERS)
            step(squares(model(features)) + squares(model.rebuild(others)), optimizer)
        else:
            loop.saw(others, OTHERS)
            optimizer.zero_grad()
            squares(model(features)).backward()
            squares(model.rebuild(others)).backward()
            optimizer.step()
        loop.updated()
    check(loop, log, "exact")


def test_a_part_of_a_model_that_is_first_called_by_itself_later_leaves_the_waiting_batch_in_doubt(
    loop: Loop, log: Read
) -> None:
    model = Autoencoder()
    optimizer = loop.sgd(model)
    for number, (features, others) in enumerate(zip(loop.batches(), loop.others_batches(), strict=True)):
        loss = squares(model(loop.saw(features)))
        step(loss + squares(model.rebuild(others)) if number > 1 else loss, optimizer)
        loop.updated()
    said, gaps = said_by(loop, log)
    assert told(said) == loop.truth
    assert gaps == [LEFT]


def test_batches_that_are_skipped_beside_noise_are_in_doubt_and_those_of_a_plain_loop_are_not(
    loop: Loop, log: Read
) -> None:
    optimizer = loop.sgd()
    for number, features in enumerate(loop.batches()):
        if number == 1:
            continue
        step(squares(loop.model(loop.saw(features))), optimizer)
        loop.updated()
    check(loop, log, "exact")


@pytest.mark.parametrize("with_noise", [False, True])
@pytest.mark.parametrize("how", ["plain", "listed", "ahead"])
def test_noise_beside_each_batch_is_no_gap_where_every_batch_is_used(
    loop: Loop, log: Read, how: str, with_noise: bool
) -> None:
    optimizer = loop.sgd()
    batches: Any = loop.batches()
    if how != "plain":
        batches = list(batches) if how == "listed" else one_ahead(batches)
    for features in batches:
        loss = squares(loop.model(loop.saw(features)))
        step(loss - squares(loop.model(torch.randn(2, 4))) if with_noise else loss, optimizer)
        loop.updated()
    check(loop, log, "exact")


def one_ahead(batches: Any) -> Any:
    upcoming = None
    for features in batches:
        if upcoming is not None:
            yield upcoming
        upcoming = features
    yield upcoming


def test_an_evaluation_between_epochs_by_a_loader_without_a_role_is_no_gap(loop: Loop, log: Read) -> None:
    optimizer, train, other = loop.sgd(), loop.batches(), loop.others_batches()
    for _ in range(2):
        for features in train:
            step(squares(loop.model(loop.saw(features))), optimizer)
            loop.updated()
        for seen in other:
            with torch.no_grad():
                loop.model(seen)
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "batches kept and trained on again as copies", attribution="fifo", note="a gap")
@pytest.mark.parametrize("how", ["cycle", "kept"])
def test_copies_of_batches_that_are_kept_are_guesses_and_a_gap_says_so(loop: Loop, log: Read, how: str) -> None:
    optimizer, kept = loop.sgd(), []
    for features in itertools.islice(itertools.cycle(loop.batches()), 8) if how == "cycle" else loop.batches():
        step(squares(loop.model(loop.saw(features * 1))), optimizer)
        loop.updated()
        kept.append(features)
    for features in kept if how == "kept" else ():
        step(squares(loop.model(loop.saw(features * 1))), optimizer)
        loop.updated()
    said, gaps = said_by(loop, log)
    sure = {use.step: use.attribution for use in said.uses()}
    assert sure == {n: "sole" if n == 1 else "fifo" for n in range(1, 9)}
    assert {at: samples for at, samples in told(said).items() if at[1] <= 4} == {
        at: samples for at, samples in loop.truth.items() if at[1] <= 4
    }
    assert gaps == [STRAY]


@pytest.mark.matrix("Updates", "a batch laid together with one of before (rehearsal, mixup)", attribution="fifo")
@pytest.mark.parametrize("how", ["rehearsal", "mixup"])
def test_a_batch_that_is_mixed_with_one_that_is_kept_is_a_guess(loop: Loop, log: Read, how: str) -> None:
    optimizer, before = loop.sgd(), None
    for features in loop.batches():
        given = features * 1
        if before is not None:
            given = torch.cat([features, before]) if how == "rehearsal" else (features + before) / 2
        loop.saw(features)
        step(squares(loop.model(given)), optimizer)
        loop.updated()
        before = features
    check(loop, log, "sole", "fifo")


def test_a_dropped_batch_that_is_kept_is_in_doubt_once_a_copy_is_trained_on(loop: Loop, log: Read) -> None:
    optimizer, dropped = loop.sgd(), None
    for number, features in enumerate(loop.batches()):
        optimizer.zero_grad()
        squares(loop.model(features)).backward()
        if number == 0:
            dropped = features
            continue
        optimizer.step()
        if number == 2 and dropped is not None:
            step(squares(loop.model(features)) + squares(loop.model(dropped * 1)), optimizer)
    said, gaps = said_by(loop, log)
    assert {(use.key, use.status) for use in said.uses() if use.key < 2} == {(0, "discarded"), (1, "discarded")}
    assert gaps == [LEFT]
