"""Batches that a framework's own hook declares: surely used, although the model is given copies, as on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.run import Run
from fgtrac.capture.batch import Batch

Read = Callable[[Path], Any]


class Framework:
    """Reads batches ahead, moves them to its device, and tells the run's grounding which one it trains on."""

    def __init__(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run, self.model = run, nn.Linear(4, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.delivered: list[Batch] = []
        deliver = run._grounding.deliver
        monkeypatch.setattr(run._grounding, "deliver", lambda *a, **k: self.note(deliver(*a, **k)))

    def note(self, batch: Batch) -> Batch:
        self.delivered.append(batch)
        return batch

    def loader(self, role: str = "train", batches: int = 4) -> DataLoader[Any]:
        return self.run.watch(DataLoader(TensorDataset(torch.randn(2 * batches, 4)), batch_size=2), role=role)

    def read(self, role: str = "train", batches: int = 4) -> list[tuple[torch.Tensor, Batch]]:
        """All batches of a pass, on the device."""
        before = len(self.delivered)
        features = [features * 1 for (features,) in self.loader(role, batches)]
        return list(zip(features, self.delivered[before:], strict=True))

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def told(self, log: Read) -> tuple[dict[int, list[tuple[int, int]]], set[str], list[Any]]:
        """step -> (loader, batch) that it rests on; how surely; the gaps."""
        self.run.close()
        said = log(self.run.path)
        uses = {(u.step, u.loader, u.batch, u.attribution) for u in said.uses() if u.status == "applied"}
        booked: dict[int, list[tuple[int, int]]] = {}
        for step, loader, batch, _ in sorted(uses):
            booked.setdefault(step, []).append((loader, batch))
        return booked, {sure for *_, sure in uses}, said.kind("gap")


@pytest.fixture
def framework(run: Run, monkeypatch: pytest.MonkeyPatch) -> Framework:
    return Framework(run, monkeypatch)


@pytest.mark.matrix("Updates", "declared by a framework's hook, copied", attribution="exact")
def test_a_declared_batch_is_surely_used_in_any_order(framework: Framework, log: Read) -> None:
    for features, batch in reversed(framework.read()):
        framework.run._grounding.declare([batch])
        framework.model(features).sum().backward()
        framework.step()
    assert framework.told(log) == ({step: [(1, 4 - step)] for step in range(1, 5)}, {"exact"}, [])


def test_a_declared_batch_without_any_module_is_surely_used(framework: Framework, log: Read) -> None:
    weight = torch.zeros(4, requires_grad=True)
    framework.optimizer = torch.optim.SGD([weight], lr=0.1)
    for features, batch in reversed(framework.read()):
        framework.run._grounding.declare([batch])
        (features @ weight).sum().backward()
        framework.step()
    assert framework.told(log) == ({step: [(1, 4 - step)] for step in range(1, 5)}, {"exact"}, [])


@pytest.mark.parametrize("second_is_copied", [True, False])
def test_batches_of_two_loaders_declared_together_are_used_together(
    framework: Framework, log: Read, second_is_copied: bool
) -> None:
    first, other = framework.read(batches=2), list(framework.loader(batches=2))
    seconds = framework.delivered[2:]
    for (features, batch), (theirs,), second in zip(first, other, seconds, strict=True):
        framework.run._grounding.declare([batch, second])
        theirs = theirs * 1 if second_is_copied else theirs
        (framework.model(theirs).sum() + framework.model(features).sum()).backward()
        framework.step()
    assert framework.told(log) == ({1: [(1, 0), (2, 0)], 2: [(1, 1), (2, 1)]}, {"exact"}, [])


def test_a_batch_that_is_recognised_overrules_what_is_declared(framework: Framework, log: Read) -> None:
    (features, batch), (replayed,) = framework.read(batches=1)[0], next(iter(framework.loader(batches=1)))
    framework.run._grounding.declare([batch])
    (framework.model(replayed).sum() + framework.model(features).sum()).backward()
    framework.step()
    framework.model(features).sum().backward()
    framework.step()
    booked, sureness, gaps = framework.told(log)
    assert (booked, sureness) == ({1: [(2, 0)], 2: [(1, 0)]}, {"exact"})
    assert [gap["reason"] for gap in gaps] == [
        "a step was given other batches than the one that it was declared to be about"
    ]  # nobody can tell whether the declared one was in the first step too


def test_a_declared_batch_that_no_step_sees_is_not_used(framework: Framework, log: Read) -> None:
    (_, batch), (replayed,) = framework.read(batches=1)[0], next(iter(framework.loader(batches=1)))
    framework.run._grounding.declare([batch])
    framework.model(replayed).sum().backward()
    framework.step()
    framework.run._grounding.declare()
    assert framework.told(log) == ({1: [(2, 0)]}, {"exact"}, [])


def test_declared_batches_accumulate_and_an_evaluation_between_them_takes_nothing(
    framework: Framework, log: Read
) -> None:
    for number, (features, batch) in enumerate(framework.read()):
        framework.run._grounding.declare([batch])
        framework.model(features).sum().backward()
        if number % 2:
            framework.step()
        for seen, evaluated in framework.read("validation", 2) if number == 1 else ():
            framework.run._grounding.declare([evaluated])
            with torch.no_grad():
                framework.model(seen)
    assert framework.told(log) == ({1: [(1, 0), (1, 1)], 2: [(1, 2), (1, 3)]}, {"exact"}, [])


def test_a_declared_batch_that_the_framework_skips_is_not_used(framework: Framework, log: Read) -> None:
    for number, (features, batch) in enumerate(framework.read()):
        framework.run._grounding.declare([batch])
        if number != 1:
            framework.model(features).sum().backward()
            framework.step()
    assert framework.told(log) == ({1: [(1, 0)], 2: [(1, 2)], 3: [(1, 3)]}, {"exact"}, [])


def test_what_follows_the_end_of_declarations_is_attributed_as_ever(framework: Framework, log: Read) -> None:
    (features, batch), *others = framework.read()
    framework.run._grounding.declare([batch])
    framework.model(features).sum().backward()
    framework.step()
    framework.run._grounding.declare_no_more()
    for features, _batch in others:
        framework.model(features).sum().backward()
        framework.step()
    booked, sureness, _ = framework.told(log)
    assert booked == {step: [(1, step - 1)] for step in range(1, 5)}
    assert sureness == {"exact", "fifo"}


def test_updates_between_declarations_are_of_nothing_that_was_not_recognised(framework: Framework, log: Read) -> None:
    (features, batch), *_ = framework.read()
    framework.run._grounding.declare([batch])
    framework.model(features).sum().backward()
    framework.step()
    framework.run._grounding.declare()
    probe = nn.Linear(4, 1)  # of which no traced batch is known
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.1)
    probe(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    assert framework.run.step == 1
    framework.model(torch.ones(3, 4)).sum().backward()
    framework.step()
    booked, sureness, gaps = framework.told(log)
    assert (booked, sureness) == ({1: [(1, 0)]}, {"exact"})
    assert [gap["reason"] for gap in gaps] == ["an update followed no delivered batch"]


def test_a_training_that_is_unseen_counts_no_steps(framework: Framework, log: Read) -> None:
    read = framework.read()
    for number, (features, batch) in enumerate(read[:2]):
        framework.run._grounding.declare([batch])
        framework.model(features).sum().backward()
        framework.step()
        with framework.run._grounding.unseen():
            for _ in range(3 * (1 - number)):
                framework.model(features).sum().backward()
                framework.step()
    assert framework.told(log) == ({1: [(1, 0)], 2: [(1, 1)]}, {"exact"}, [])


def test_the_losses_of_a_declared_batch_are_its_own(framework: Framework, log: Read) -> None:
    read = framework.read()
    for features, batch in reversed(read):
        framework.run._grounding.declare([batch])
        losses = framework.model(features).sum(1)
        losses.sum().backward()
        framework.run.losses(torch.full((2,), float(batch.number)))
        framework.step()
    framework.run.close()
    assert all(u.loss == u.batch for u in log(framework.run.path).uses())
