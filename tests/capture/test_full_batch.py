"""Full-batch training on a graph: one batch a pass, with everything that the forward pass received."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch_geometric.data import Data

from fgtrac.api.run import Run, start_run
from fgtrac.capture.graph import GraphNodes
from fgtrac.errors import CaptureError
from graphs import Network, NodeUse, make_graph, node_uses
from replays import HOLDS, replayed

Read = Callable[[Path], Any]


def train(passes: Any, model: torch.nn.Module, epochs: int = 3) -> torch.optim.Optimizer:
    """Epochs over `passes`, each a full batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(epochs):
        for batch in passes:
            optimizer.zero_grad()
            outputs = model(batch.x, batch.edge_index)
            cross_entropy(outputs[batch.train_mask], batch.y[batch.train_mask]).backward()
            optimizer.step()
            with torch.no_grad():
                model(batch.x, batch.edge_index)  # an evaluation of the same memory
    return optimizer


def said(log: Any) -> dict[tuple[int, ...], NodeUse]:
    blocks = {block: [log.names[i][1] for i in ids] for block, ids in log.blocks().items()}
    return node_uses(log.kind("use"), lambda block, ordinal: blocks[block][ordinal])


def reach(graph: Data, seeds: set[int], steps: int) -> list[set[int]]:
    """The nodes at each hop, and all others at the last, by breadth-first search in plain Python."""
    edges = graph.edge_index.T.tolist()
    known, hops = set(seeds), []
    for _ in range(steps):
        hops.append({a for a, b in edges if b in known} - known)
        known |= hops[-1]
    return [*hops, set(range(graph.num_nodes)) - known]


@pytest.mark.parametrize("nodes", ["train_mask", [4, 59, 17]], ids=["half of them", "three"])
@pytest.mark.parametrize("hops", [1, 2])
def test_every_pass_names_all_nodes_that_the_model_received_by_their_hop(
    tmp_path: Path, log: Read, nodes: Any, hops: int
) -> None:
    graph, weights = make_graph(), []
    for traced in (False, True):
        torch.manual_seed(3)
        model = Network()
        if traced:
            with start_run(tmp_path / "run", key=tmp_path / "key.pem", flush_interval_s=3600.0) as run:
                train(run.full_batch(graph, nodes, hops=hops, role="train"), model)
        else:
            train([graph], model)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    seeds = graph.train_mask.nonzero().flatten().tolist() if isinstance(nodes, str) else nodes
    uses = said(log(tmp_path / "run.trace"))
    assert sorted(uses) == [(1, 1, epoch, 0, epoch + 1) for epoch in range(3)]
    for use in uses.values():
        assert (use.graph, use.status, use.attribution) == ("whole", "applied", "exact")
        assert use.seeds == seeds
        assert use.hops == reach(graph, set(seeds), hops)
    assert replayed(tmp_path).verdict is HOLDS


def test_called_in_every_epoch_it_goes_on_and_other_arguments_are_another_loader(run: Run, log: Read) -> None:
    graph, model = make_graph(), Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for batch in run.full_batch(graph, "train_mask", hops=2, role="train"):
            assert batch is graph
            optimizer.zero_grad()
            model(batch.x, batch.edge_index)[batch.train_mask].square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            for batch in run.full_batch(graph, "val_mask", hops=2, role="validation"):
                model(batch.x, batch.edge_index)
    run.close()
    uses = said(log(run.path))
    assert {(key[0], key[2]): use.status for key, use in uses.items()} == {
        (1, 0): "applied", (1, 1): "applied", (2, 0): "unapplied", (2, 1): "unapplied"
    }  # fmt: skip


def test_a_pass_over_other_edges_counts_its_hops_anew(run: Run, log: Read) -> None:
    graph = make_graph()
    wanted: list[list[set[int]]] = []
    passes = run.full_batch(graph, [10, 11], hops=2, role="train")
    for number in range(3):
        if number == 1:
            graph.edge_index[:, :40].fill_(10)  # in place
        if number == 2:
            graph.edge_index = graph.edge_index[:, :60]
        train(passes, Network(), 1)
        wanted.append(reach(graph, {10, 11}, 2))
    run.close()
    uses = said(log(run.path))
    assert [uses[key].hops for key in sorted(uses)] == wanted
    assert all(one != other for one, other in pairwise(wanted))


@pytest.mark.parametrize("named", [True, False])
def test_a_pass_over_other_seeds_is_recorded_with_them_and_gives_them_the_role(
    tmp_path: Path, log: Read, named: bool
) -> None:
    """A mask that grows while the loop goes on: in place, and by another tensor under its name."""
    graph, model = make_graph(), Network()
    wanted: list[list[int]] = []
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        passes = run.full_batch(graph, "train_mask" if named else graph.train_mask, hops=2, role="train")
        late = graph.test_mask.nonzero().flatten().tolist()
        for number in range(4):
            if number == 1:
                graph.train_mask[late[0]] = True
            if number == 3 and named:
                graph.train_mask = graph.train_mask.index_fill(0, torch.tensor(late[1]), True)
            train(passes, model, 1)
            wanted.append(graph.train_mask.nonzero().flatten().tolist())
    told = log(run.path)
    uses = sorted(said(told).items(), key=lambda item: item[0][-1])
    assert [use.seeds for _, use in uses] == wanted
    assert [use.hops for _, use in uses] == [reach(graph, set(seeds), 2) for seeds in wanted]
    assert [(loader, epoch) for (loader, _, epoch, _, _), _ in uses][:3] == [(1, 0), (2, 0), (2, 1)]
    given = {key for e in told.kind("roles") for key in told.keys(e["block"], e["ordinals"])}
    assert given == set(wanted[-1])
    assert replayed(tmp_path).verdict is HOLDS


def test_a_graph_that_is_longer_than_an_entry_is_cut_and_put_together_again(tmp_path: Path, log: Read) -> None:
    """20,000 nodes, 17,000 of them seeds, with the losses of the seeds."""
    rng = np.random.default_rng(0)
    graph = Data(x=torch.randn(20_000, 5), edge_index=torch.tensor(rng.integers(0, 20_000, (2, 30_000))))
    seeds = rng.permutation(20_000)[:17_000]
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem", flush_interval_s=3600.0) as run:
        for batch in run.full_batch(graph, seeds, hops=2, role="train"):
            losses = model(batch.x, batch.edge_index)[torch.tensor(seeds)].square().mean(dim=1)
            run.losses(losses)
            losses.mean().backward()
            optimizer.step()
    told = log(run.path)
    uses = said(told)
    (use,) = uses.values()
    assert use.seeds == seeds.tolist()
    assert use.hops == reach(graph, set(seeds.tolist()), 2)
    entries = told.kind("use")
    assert len(entries) == 2
    assert np.concatenate([e["losses"] for e in entries]).tolist() == losses.detach().half().tolist()
    assert replayed(tmp_path).verdict is HOLDS


@pytest.mark.parametrize("hops", [0, -1, 1001, True, 2.0, None])
def test_hops_that_are_no_number_of_steps_are_refused(run: Run, hops: Any) -> None:
    with pytest.raises(ValueError, match="no number of message-passing steps; give 1 to 1000"):
        run.full_batch(make_graph(), hops=hops)


def test_a_run_that_is_closed_records_no_pass(tmp_path: Path, log: Read) -> None:
    graph = make_graph()
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        passes = run.full_batch(graph, hops=1)
        assert list(passes) == [graph]
    before = len(log(run.path).events)
    assert list(passes) == [graph]
    assert len(log(run.path).events) == before
    with pytest.raises(CaptureError, match="closed"):
        run.full_batch(graph, hops=1)


class OverTheGraph:
    """A loop over node numbers: the model sees the whole graph each time, and its input tells no batch from another."""

    def __init__(self, run: Run, *, batch_size: int = 15) -> None:
        self.run, self.graph, self.model = run, make_graph(), Network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        loader = DataLoader(GraphNodes(self.graph, "train_mask"), batch_size=batch_size, shuffle=True)
        self.train = run.watch(loader, role="train")
        self.drawn: list[list[int]] = []

    def validation(self) -> Any:
        return self.run.full_batch(self.graph, "val_mask", hops=2, role="validation")

    def evaluate(self) -> None:
        for batch in self.validation():
            with torch.no_grad():
                self.model(batch.x, batch.edge_index)

    def update(self, nodes: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.model(self.graph.x, self.graph.edge_index)[nodes].square().sum().backward()
        self.optimizer.step()
        self.drawn.append(nodes.tolist())

    def booked(self, log: Read) -> tuple[list[list[int]], set[str], list[str]]:
        """The seeds of each update; how surely; the gaps' reasons."""
        self.run.close()
        told = log(self.run.path)
        seeds: dict[int, list[int]] = {}
        for use in told.uses():
            if use.status == "applied":
                seeds.setdefault(use.step, []).append(use.key)
        sure = {use.attribution for use in told.uses() if use.status == "applied"}
        return [seeds[step] for step in sorted(seeds)], sure, [gap["reason"] for gap in told.kind("gap")]


GAP = ["updates were given to batches by their order, and some are left"]


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("when", ["before each epoch", "before each batch", "after each batch"])
def test_updates_of_a_loader_of_node_numbers_are_not_booked_on_a_full_batch_that_was_evaluated(
    run: Run, log: Read, when: str, updates: int
) -> None:
    loop = OverTheGraph(run)
    for _ in range(2):
        if when == "before each epoch":
            loop.evaluate()
        for nodes in loop.train:
            if when == "before each batch":
                loop.evaluate()
            for _ in range(updates):
                loop.update(nodes)
            if when == "after each batch":
                loop.evaluate()
    assert loop.booked(log) == (loop.drawn, {"sole"}, [])


def test_a_full_batch_that_waits_beside_node_numbers_leaves_their_updates_in_doubt(run: Run, log: Read) -> None:
    loop = OverTheGraph(run)
    loop.update(next(iter(loop.train)))  # its model is known from here on
    for _ in loop.validation():
        for nodes in loop.train:
            loop.update(nodes)
    assert loop.booked(log) == (loop.drawn, {"sole", "fifo"}, GAP)


@pytest.mark.parametrize("evaluated", [True, False])
def test_training_on_a_validation_pass_over_the_graph_is_booked_on_it(run: Run, log: Read, evaluated: bool) -> None:
    loop = OverTheGraph(run)
    for nodes in loop.train:
        loop.update(nodes)
    if evaluated:
        loop.evaluate()
    for _ in loop.validation():
        loop.update(loop.graph.val_mask.nonzero().flatten())
    booked, sure, gaps = loop.booked(log)
    assert booked == loop.drawn
    assert (sure, gaps) == ({"sole", "exact"}, [])


def test_a_loop_that_hands_its_node_numbers_to_the_model_is_recognised_by_them(run: Run, log: Read) -> None:
    loop = OverTheGraph(run)

    class OfNodes(Network):
        def forward(self, x: Any, edge_index: Any, nodes: Any = ...) -> torch.Tensor:
            return super().forward(x, edge_index)[nodes]

    model = OfNodes()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in loop.validation():
        for nodes in list(loop.train)[::-1]:
            optimizer.zero_grad()
            model(loop.graph.x, loop.graph.edge_index, nodes).square().sum().backward()
            optimizer.step()
            loop.drawn.append(nodes.tolist())
    assert loop.booked(log) == (
        loop.drawn,
        {"exact"},
        GAP,
    )  # whose labels are in the loss beside theirs, nobody can tell
