"""Batches that a model saw without gradients: training on what was made of them afterwards is booked on them, or said
to be a guess."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_geometric.utils import dropout_edge

from fgtrac.api.run import Run
from graphs import Network, make_graph, node_loader

Read = Callable[[Path], Any]
GAP = ["updates were given to batches by their order, and some are left"]


class Loop:
    """A linear model and its optimizer; what is trained on is a copy of the batch, as an augmentation makes it."""

    def __init__(self) -> None:
        self.model = nn.Linear(4, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def evaluate(self, features: torch.Tensor) -> None:
        with torch.no_grad():
            self.model(features)

    def train(self, features: torch.Tensor, copied: bool = True) -> None:
        self.optimizer.zero_grad()
        self.model(features * 2 if copied else features).sum().backward()
        self.optimizer.step()


def watched(run: Run, batches: int = 4, role: str = "train") -> DataLoader[Any]:
    data = TensorDataset(torch.randn(2 * batches, 4))
    return run.watch(
        DataLoader(data, batch_size=2, collate_fn=lambda rows: torch.stack([r[0] for r in rows])), role=role
    )


def told(run: Run, log: Read) -> tuple[dict[int, tuple[int, int]], set[str], list[str]]:
    """step -> loader and batch that it was booked on, of the first optimizer; how surely; the gaps' reasons."""
    run.close()
    said = log(run.path)
    uses = {u.step: u for u in said.uses() if u.status == "applied"}
    booked = {step: (use.loader, use.batch) for step, use in uses.items()}
    return booked, {u.attribution for u in uses.values()}, [gap["reason"] for gap in said.kind("gap")]


IN_ORDER = {n + 1: (1, n) for n in range(4)}


def test_a_teacher_s_look_at_a_batch_does_not_take_it_out_of_turn(run: Run, log: Read) -> None:
    loop = Loop()
    for features in watched(run):
        loop.evaluate(features)
        loop.train(features)
    assert told(run, log) == (IN_ORDER, {"sole"}, [])


def test_a_teacher_s_look_at_a_sampled_subgraph_does_not_take_it_out_of_turn(run: Run, log: Read) -> None:
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in run.watch(node_loader(make_graph()), role="train"):
        with torch.no_grad():
            model(batch.x, batch.edge_index)
        optimizer.zero_grad()
        model(batch.x * 2, dropout_edge(batch.edge_index)[0])[: batch.batch_size].sum().backward()
        optimizer.step()
    assert told(run, log) == (IN_ORDER, {"sole"}, [])


def test_an_evaluation_inside_each_full_batch_does_not_take_it_out_of_turn(run: Run, log: Read) -> None:
    graph, model = make_graph(), Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(3):
        for batch in run.full_batch(graph, [1, 2, 3 + epoch // 2], hops=2, role="train"):
            with torch.no_grad():
                model(batch.x, batch.edge_index)
            optimizer.zero_grad()
            model(batch.x * 2, dropout_edge(batch.edge_index)[0])[:5].sum().backward()
            optimizer.step()
    run.close()
    uses = [(u.loader, u.epoch, u.step, u.status, u.attribution) for u in log(run.path).uses()]
    truth = [(1, 0, 1), (1, 1, 2), (2, 0, 3)]
    assert sorted(set(uses)) == [(*use, "applied", "sole") for use in truth]


@pytest.mark.parametrize("left", [0, 1])
def test_batches_read_ahead_and_evaluated_are_taken_in_order_and_what_is_left_is_said(
    run: Run, log: Read, left: int
) -> None:
    loop, batches = Loop(), list(watched(run))
    for features in batches:
        loop.evaluate(features)
    for features in batches[: 4 - left]:
        loop.train(features)
    booked = {step: where for step, where in IN_ORDER.items() if step <= 4 - left}
    assert told(run, log) == (booked, {"fifo"}, GAP * left)


@pytest.mark.parametrize("held", [True, False])
def test_the_last_batch_of_a_loop_that_reads_one_ahead_is_not_lost_when_it_was_evaluated(
    run: Run, log: Read, held: bool
) -> None:
    loop = Loop()
    batches = iter(watched(run))
    upcoming = next(batches, None)
    while upcoming is not None:
        loop.evaluate(upcoming)
        features = upcoming if held else upcoming * 2
        upcoming = None
        upcoming = next(batches, None)  # the last time, the loader says that there are no more
        if upcoming is not None and not held:
            loop.evaluate(upcoming)
            upcoming = upcoming * 2
        loop.train(features)
    assert told(run, log) == (IN_ORDER, {"fifo"}, [])


def test_batches_that_were_evaluated_and_left_out_are_said_to_be_in_doubt(run: Run, log: Read) -> None:
    loop = Loop()
    for number, features in enumerate(watched(run)):
        loop.evaluate(features)
        if number != 1:
            loop.train(features)
    booked, sureness, gaps = told(run, log)
    assert booked == {1: (1, 0), 2: (1, 2), 3: (1, 3)}
    assert (sureness, gaps) == ({"sole", "fifo"}, GAP)


@pytest.mark.parametrize("held", [True, False])
def test_an_evaluation_of_training_data_by_a_loader_of_its_own_takes_no_update(run: Run, log: Read, held: bool) -> None:
    loop = Loop()
    train, check = watched(run, batches=2), watched(run, batches=3)
    for _ in range(2):
        for features in train:
            loop.train(features)
        for seen in check:
            loop.evaluate(seen)
        if not held:  # as at the end of a function
            del seen
    booked, _, gaps = told(run, log)
    assert booked == {1: (1, 0), 2: (1, 1), 3: (1, 0), 4: (1, 1)}
    assert gaps == GAP * held


def test_training_on_an_evaluation_batch_that_was_copied_is_no_sure_use_of_an_older_batch(run: Run, log: Read) -> None:
    loop = Loop()
    train, validation = watched(run), watched(run, role="validation")
    for features in train:
        loop.train(features)
    for seen in validation:
        loop.evaluate(seen)
        loop.train(seen)
    booked, sureness, gaps = told(run, log)
    assert {step: booked[step] for step in IN_ORDER} == IN_ORDER
    assert (sureness, gaps) == ({"sole", "fifo"}, GAP)


def test_a_copy_of_a_batch_that_was_passed_over_and_kept_is_no_sure_use_of_the_last_one(run: Run, log: Read) -> None:
    loop, batches = Loop(), list(watched(run))
    loop.train(batches[3], copied=False)
    loop.train(batches[1])
    assert told(run, log)[1:] == ({"exact", "fifo"}, ["an update followed no delivered batch"])
