"""Updates on data that no watched loader delivered: they are no sure use of the last batch, and a gap says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.run import Run
from graphs import Network, make_graph

Read = Callable[[Path], Any]
GAP = ["an update followed no delivered batch"]


class Loop:
    """A linear model and its optimizer over two batches of a watched loader."""

    def __init__(self, run: Run, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD) -> None:
        self.run, self.model = run, nn.Linear(4, 2)
        self.optimizer = optimizer(self.model.parameters(), lr=0.1)
        self.loader = run.watch(plain(), role="train")

    def train_on(self, loader: DataLoader[Any]) -> None:
        for features in loader:
            self.train(features)

    def train(self, features: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.model(features).sum().backward()
        self.optimizer.step()

    def told(self, log: Read) -> tuple[dict[int, tuple[int, str]], list[str]]:
        """step -> batch that it was booked on, and how surely; the gaps' reasons."""
        self.run.close()
        said = log(self.run.path)
        sure = {u.step: (u.batch, u.attribution) for u in said.uses() if u.status == "applied"}
        return sure, [gap["reason"] for gap in said.kind("gap")]


def plain() -> DataLoader[Any]:
    return DataLoader(
        TensorDataset(torch.randn(4, 4)), batch_size=2, collate_fn=lambda rows: torch.stack([r[0] for r in rows])
    )


def copies(loader: DataLoader[Any]) -> Iterator[torch.Tensor]:
    """Each batch on another device, where nobody holds the one that was delivered."""
    for features in loader:
        features = features * 2
        yield features


@pytest.mark.parametrize("is_copied", [False, True])
def test_training_on_a_loader_that_nobody_watches_is_no_sure_use_of_the_last_batch(
    run: Run, log: Read, is_copied: bool
) -> None:
    loop = Loop(run)
    for features in copies(loop.loader) if is_copied else loop.loader:
        loop.train(features)
    del features
    unwatched = plain()
    with pytest.warns(RuntimeWarning, match="not watched"):
        loop.train_on(unwatched)
    sure = "sole" if is_copied else "exact"
    gap = ["the model is trained on batches of a loader over TensorDataset that is not watched"]
    assert loop.told(log) == ({1: (0, sure), 2: (1, sure), 3: (1, "fifo"), 4: (1, "fifo")}, gap)


def test_no_claim_about_the_whole_run_holds_once_an_update_followed_no_delivered_batch(run: Run, log: Read) -> None:
    loop = Loop(run)
    for features in loop.loader:
        loop.train(features)
        loop.train(torch.randn(2, 4))  # which may be an augmented copy of the batch in hand
    sure = {step: ((step - 1) // 2, "exact" if step % 2 else "fifo") for step in range(1, 5)}
    assert loop.told(log) == (sure, GAP)


@pytest.mark.parametrize("held", [True, False])
def test_several_updates_of_a_loop_that_always_copies_its_batches_are_no_gap(run: Run, log: Read, held: bool) -> None:
    loop = Loop(run)
    for features in loop.loader if held else copies(loop.loader):
        for _ in range(3):
            loop.train(features * 2)
    assert loop.told(log) == ({step: ((step - 1) // 3, "sole") for step in range(1, 7)}, [])


def test_several_updates_and_backward_passes_of_one_recognised_batch_stay_exact(run: Run, log: Read) -> None:
    loop = Loop(run)
    for features in loop.loader:
        loop.train(features)
        loss = loop.model(features).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        loop.optimizer.step()
    assert loop.told(log) == ({step: ((step - 1) // 2, "exact") for step in range(1, 5)}, [])


def test_closures_that_pass_over_a_batch_several_times_stay_exact(run: Run, log: Read) -> None:
    loop = Loop(run, torch.optim.LBFGS)

    def closure(features: torch.Tensor) -> torch.Tensor:
        loop.optimizer.zero_grad()
        loss = loop.model(features).square().sum()
        loss.backward()
        return loss

    for features in loop.loader:
        for _ in range(2):
            loop.optimizer.step(partial(closure, features))
    assert loop.told(log) == ({step: ((step - 1) // 2, "exact") for step in range(1, 5)}, [])


def test_a_gradient_of_data_that_nobody_delivered_is_no_gap_where_no_update_is_made_of_it(run: Run, log: Read) -> None:
    loop = Loop(run)
    for features in loop.loader:
        loop.train(features)
        loop.optimizer.zero_grad()
        loop.model(torch.randn(2, 4)).sum().backward()  # a saliency map, say
        loop.optimizer.zero_grad()
    assert loop.told(log) == ({1: (0, "exact"), 2: (1, "exact")}, [])


class OnAGraph:
    """Full batches over one graph, and updates on the nodes of each."""

    def __init__(self, run: Run) -> None:
        self.run, self.graph, self.model = run, make_graph(), Network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        seeds = self.graph.train_mask.nonzero().flatten()
        self.first = run.full_batch(self.graph, seeds[:15], hops=2, role="train")
        self.second = run.full_batch(self.graph, seeds[15:], hops=2, role="train")

    def train(self) -> None:
        self.optimizer.zero_grad()
        self.model(self.graph.x, self.graph.edge_index).square().sum().backward()
        self.optimizer.step()

    def evaluate(self, role: str | None) -> None:
        for batch in self.run.full_batch(self.graph, "val_mask", hops=2, role=role):
            with torch.no_grad():
                self.model(batch.x, batch.edge_index)

    def told(self, log: Read) -> tuple[dict[int, tuple[int, str]], list[str]]:
        """step -> loader that it was booked on, and how surely; the gaps' reasons."""
        self.run.close()
        said = log(self.run.path)
        sure = {u.step: (u.loader, u.attribution) for u in said.uses() if u.status == "applied"}
        return sure, [gap["reason"] for gap in said.kind("gap")]


def test_a_full_batch_whose_body_has_ended_unused_takes_no_update(run: Run, log: Read) -> None:
    loop = OnAGraph(run)
    for passes in (loop.first, loop.second, loop.first):
        for _ in loop.first:
            pass
        for _ in passes:
            loop.train()
            loop.train()
    sure = {1: (1, "exact"), 2: (1, "exact"), 3: (2, "exact"), 4: (2, "exact"), 5: (1, "exact"), 6: (1, "exact")}
    assert loop.told(log) == (sure, [])


def test_training_on_a_graph_behind_its_full_batch_is_no_sure_use_of_it(run: Run, log: Read) -> None:
    loop = OnAGraph(run)
    for _ in loop.first:
        loop.train()
    loop.train()
    assert loop.told(log) == ({1: (1, "exact"), 2: (1, "fifo")}, GAP)


def test_full_batches_that_wait_for_updates_at_once_are_guesses_all_of_them(run: Run, log: Read) -> None:
    loop = OnAGraph(run)
    for _ in zip(loop.first, loop.second, strict=True):
        loop.train()
        loop.train()
    assert loop.told(log) == ({1: (1, "fifo"), 2: (2, "fifo")}, [])


@pytest.mark.parametrize("role", [None, "validation"])
def test_an_evaluation_on_the_graph_inside_a_training_body_leaves_its_updates_sure(
    run: Run, log: Read, role: str | None
) -> None:
    loop = OnAGraph(run)
    for _ in range(2):
        for _ in loop.first:
            loop.evaluate(role)
            loop.train()
            loop.evaluate(role)
            loop.train()
    assert loop.told(log) == (dict.fromkeys(range(1, 5), (1, "exact")), [])


def test_a_full_batch_that_is_trained_on_behind_its_body_is_a_guess_and_not_lost(run: Run, log: Read) -> None:
    loop = OnAGraph(run)
    for _ in list(loop.first):
        loop.train()
    for _ in list(loop.second):
        loop.train()
    assert loop.told(log) == ({1: (1, "fifo"), 2: (2, "fifo")}, GAP)
