"""PyG's node loaders: the log names the seeds and every hop's nodes that the model's forward pass really received."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.sampler import BaseSampler, SamplerOutput
from torch_geometric.transforms import Compose, NormalizeFeatures, VirtualNode

from fgtrac.api.run import Run, start_run
from fgtrac.capture.hops import SampledNodes, steps_to
from fgtrac.capture.own_time import own_time
from fgtrac.errors import CaptureError
from graphs import FewNeighbours, Network, NodeUse, make_graph, node_loader, node_uses
from replays import HOLDS, replayed

Read = Callable[[Path], Any]
Received = list[tuple[list[int], list[set[int]]]]  # of each forward pass: the seeds, the nodes at each hop


class Recording:
    """A forward pre-hook of the model: knows each node by its features, and counts hops over the edges, in plain
    Python."""

    def __init__(self, graph: Data) -> None:
        self.numbers = {tuple(row): node for node, row in enumerate(graph.x.tolist())}
        self.seen: list[tuple[list[int], list[tuple[int, int]]]] = []

    def __call__(self, module: nn.Module, args: tuple[torch.Tensor, torch.Tensor]) -> None:
        x, edges = args
        nodes = [self.numbers[tuple(row)] for row in x.tolist()]
        self.seen.append((nodes, list(zip(*edges.tolist(), strict=True))))

    def received(self, seeds: list[int]) -> Received:
        """`seeds[i]` is how many of pass i's nodes had their loss taken."""
        told = []
        for (nodes, edges), count in zip(self.seen, seeds, strict=True):
            places, hops = set(range(count)), []
            names = set(nodes[:count])
            while nearer := {a for a, b in edges if b in places} - places:
                places |= nearer
                hops.append({nodes[place] for place in nearer} - names)
                names |= hops[-1]
            assert len(places) == len(nodes)
            told.append((nodes[:count], hops))
        return told


def train(
    loader: Any, model: nn.Module, epochs: int = 2, each: Callable[[int], Any] | None = None
) -> tuple[list[int], torch.optim.Optimizer]:
    """An ordinary loop; `each` is called before every update. How many seeds each batch had."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    sizes = []
    for _ in range(epochs):
        for batch in loader:
            optimizer.zero_grad()
            outputs = model(batch.x, batch.edge_index)[: batch.batch_size]
            cross_entropy(outputs, batch.y[: batch.batch_size]).backward()
            optimizer.step()
            sizes.append(batch.batch_size)
    return sizes, optimizer


def said(log: Any) -> dict[tuple[int, ...], NodeUse]:
    return node_uses(log.kind("use"), lambda block, ordinal: log.keys(block, [ordinal])[0])


LOADERS: dict[str, dict[str, Any]] = {
    "made in the main process": {"filter_per_worker": False},
    "made by the worker": {"filter_per_worker": True},
    "disjoint": {"sampler": {"disjoint": True}},
    "hops untold": {"sampler": {"tells_hops": False}},
    "in order": {"shuffle": False, "drop_last": True, "filter_per_worker": True, "sampler": {"disjoint": True}},
    "persistent": {"persistent_workers": True},
}


@pytest.mark.parametrize(
    ("how", "workers"), [(how, workers) for how in LOADERS for workers in (0, 2) if workers or how != "persistent"]
)
def test_every_use_names_the_seeds_and_the_nodes_of_every_hop_that_the_forward_pass_received(
    tmp_path: Path, log: Read, how: str, workers: int
) -> None:
    graph, options = make_graph(), dict(LOADERS[how])
    weights, states = [], []
    for traced in (False, True):
        torch.manual_seed(3)
        sampler = FewNeighbours(graph, **options.get("sampler", {}))
        loader = node_loader(graph, **options | {"sampler": sampler, "num_workers": workers})
        model = Network()
        recording = Recording(graph)
        model.register_forward_pre_hook(recording)
        if traced:
            with start_run(tmp_path / "run", key=tmp_path / "key.pem", flush_interval_s=3600.0) as run:
                assert run.watch(loader, role="train") is loader
                sizes, _ = train(loader, model)
        else:
            train(loader, model)
        weights.append(model.state_dict())
        states.append(torch.get_rng_state())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert torch.equal(*states)

    truth = recording.received(sizes)
    uses = said(log(tmp_path / "run.trace"))
    assert [key[-1] for key in sorted(uses)] == list(range(1, len(truth) + 1))
    for (seeds, hops), key in zip(truth, sorted(uses), strict=True):
        use = uses[key]
        assert (use.graph, use.status, use.attribution) == ("sampled", "applied", "exact")
        assert use.seeds == seeds
        assert [hop for hop in use.hops if hop] == [hop for hop in hops if hop]
        assert not set(seeds) & set().union(*use.hops)
    assert sum(len(use.hops[-1]) > 0 for use in uses.values()) > 2
    assert replayed(tmp_path).verdict is HOLDS


@pytest.mark.parametrize("transform", [NormalizeFeatures(), lambda batch: batch.clone()], ids=["in place", "a copy"])
def test_the_batch_is_looked_at_behind_its_transform(run: Run, log: Read, transform: Any) -> None:
    sizes, _ = train(run.watch(node_loader(make_graph(), transform=transform), role="train"), Network())
    run.close()
    uses = said(log(run.path)).values()
    assert [use.attribution for use in uses] == ["exact"] * len(sizes)


@pytest.mark.parametrize("by_worker", [False, True])
@pytest.mark.parametrize("drops", [False, True])
def test_hops_are_those_of_the_edges_where_a_transform_puts_neighbours_into_another_order(
    run: Run, log: Read, by_worker: bool, drops: bool
) -> None:
    """Where it only drops edges they stay the sampler's."""
    drawn: list[list[set[int]]] = []

    def change(batch: Data) -> Data:
        nodes, ends = batch.n_id.tolist(), np.cumsum(batch.num_sampled_nodes).tolist()
        drawn.append([set(nodes[a:b]) for a, b in pairwise(ends)])
        if drops:
            batch.edge_index = batch.edge_index[:, ::2]
            return batch
        size = batch.batch_size
        return batch.subgraph(torch.cat([torch.arange(size), torch.arange(batch.num_nodes - 1, size - 1, -1)]))

    train(run.watch(node_loader(make_graph(), transform=change, filter_per_worker=by_worker), role="train"), Network())
    run.close()
    uses = said(log(run.path))
    assert [uses[key].hops for key in sorted(uses)] == drawn
    assert all(all(hops) for hops in drawn)


def test_what_would_hide_who_is_in_a_batch_is_refused_before_the_first(run: Run) -> None:
    graph = make_graph()
    virtual = node_loader(graph, transform=Compose([NormalizeFeatures(), VirtualNode()]))
    with pytest.raises(CaptureError, match="transform adds a node that is none of the graph's"):
        run.watch(virtual)
    graph.n_id = torch.arange(60).flip(0)
    with pytest.raises(CaptureError, match="attribute n_id, which PyG's loaders deliver in the place"):
        run.watch(node_loader(graph))


def test_nodes_whose_messages_reach_no_seed_stand_one_hop_beyond_the_others(run: Run, log: Read) -> None:
    def cut(batch: Data) -> Data:
        batch.edge_index = batch.edge_index[:, batch.edge_index[0] != batch.batch_size]  # of the first neighbour
        return batch

    graph = make_graph()
    loader = node_loader(graph, sampler=FewNeighbours(graph, (2,), tells_hops=False), transform=cut)
    cut_off = [int(batch.n_id[batch.batch_size]) for batch in run.watch(loader, role="train")]
    run.close()
    uses = said(log(run.path))
    assert [uses[key].hops[1] for key in sorted(uses)] == [{node} for node in cut_off]
    assert all(len(use.hops) == 2 and use.hops[0] for use in uses.values())


def test_a_model_that_takes_the_whole_batch_is_recognised(run: Run, log: Read) -> None:
    class Whole(Network):
        def forward(self, batch: Any) -> torch.Tensor:  # type: ignore[override]
            return super().forward(batch.x, batch.edge_index)

    graph = make_graph()
    loaders = [run.watch(node_loader(graph), role="train"), run.watch(node_loader(graph, "val_mask"), role="train")]
    model = Whole()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = []
    for one, other in zip(*loaders, strict=False):
        for batch in (other, one):  # the later one first: only its memory tells which it is
            optimizer.zero_grad()
            cross_entropy(model(batch)[: batch.batch_size], batch.y[: batch.batch_size]).backward()
            optimizer.step()
            steps.append(batch.n_id[: batch.batch_size].tolist())
    run.close()
    uses = {key[-1]: use for key, use in said(log(run.path)).items() if use.status == "applied"}
    assert [uses[step].seeds for step in sorted(uses)] == steps
    assert {use.attribution for use in uses.values()} == {"exact"}


def test_accumulated_skipped_and_evaluated_batches_are_told_apart(run: Run, log: Read) -> None:
    graph = make_graph()
    loader = run.watch(node_loader(graph, batch_size=4), role="train")
    check = run.watch(node_loader(graph, "val_mask", batch_size=5), role="validation")
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    truth, losses = [], []
    for number, batch in enumerate(loader):
        if number == 2:
            truth.append(("unapplied", batch.n_id.tolist()))
            continue
        outputs = model(batch.x, batch.edge_index)[: batch.batch_size]
        loss = cross_entropy(outputs, batch.y[: batch.batch_size], reduction="none")
        run.losses(loss)
        losses.append(loss.detach().half().tolist())
        loss.mean().backward()
        truth.append((number // 2 + 1, batch.n_id.tolist()))
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for held_out in check:
                    model(held_out.x, held_out.edge_index)
    run.close()
    told = log(run.path)
    uses = {key: use for key, use in said(told).items() if key[0] == 1}
    found = {}
    for (_loader, _optimizer, _epoch, batch_number, step), use in uses.items():
        which = step if use.status == "applied" else use.status
        found[batch_number] = which, sorted([*use.seeds, *set().union(*use.hops)])
    assert found == {n: (which, sorted(nodes)) for n, (which, nodes) in enumerate(truth)}
    assert {use.status for key, use in said(told).items() if key[0] == 2} == {"unapplied"}
    kept = [loss for event in told.kind("use") for loss in event.get("losses", np.empty(0)).tolist()]
    assert kept == [loss for batch in losses for loss in batch]


def test_a_run_that_crashed_goes_on_with_the_same_graph(tmp_path: Path, log: Read) -> None:
    graph = make_graph()

    def go_on(run: Run, batches: int) -> list[list[int]]:
        loader = run.watch(node_loader(graph), role="train")
        model = Network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        nodes = []
        for number, batch in enumerate(loader):
            optimizer.zero_grad()
            cross_entropy(model(batch.x, batch.edge_index)[: batch.batch_size], batch.y[: batch.batch_size]).backward()
            optimizer.step()
            nodes.append(batch.n_id.tolist())
            run.checkpoint(model, optimizer, val_loss=1.0)
            if number + 1 == batches:
                raise OSError("the machine is gone")
        return nodes

    with (
        pytest.raises(OSError, match="the machine is gone"),
        start_run(tmp_path / "run", key=tmp_path / "k.pem") as run,
    ):
        go_on(run, 2)
    with start_run(tmp_path / "run", key=tmp_path / "k.pem", resume=True) as run:
        nodes = go_on(run, 99)
    told = log(tmp_path / "run.trace")
    assert [e["name"] for e in told.kind("dataset")] == ["graph", "graph"]
    assert len({e["block"] for e in told.kind("use")}) == 1
    uses = said(told)
    assert sorted(key[-1] for key in uses) == [1, 2, *range(3, 3 + len(nodes))]
    found = [sorted([*uses[key].seeds, *set().union(*uses[key].hops)]) for key in sorted(uses, key=lambda k: k[-1])[2:]]
    assert found == [sorted(n) for n in nodes]


class Elsewhere(BaseSampler):
    """What a sampler drew, put in another order, or said to be other than it is."""

    def __init__(self, inner: FewNeighbours, change: Callable[[SamplerOutput], Any]) -> None:
        self.inner = inner
        self.change = change

    edge_permutation = None

    def sample_from_edges(self, index: Any, **_options: Any) -> SamplerOutput:
        raise NotImplementedError

    def sample_from_nodes(self, index: Any, **_options: Any) -> SamplerOutput:
        out = self.inner.sample_from_nodes(index)
        self.change(out)
        return out


def turn(out: SamplerOutput) -> None:
    out.node = out.node.flip(0)


def miscount(out: SamplerOutput) -> None:
    out.num_sampled_nodes = [2, 1]


def invent(batch: Data) -> Data:
    batch.n_id[-1] = 99
    return batch


def wrap(batch: Data) -> Data:
    batch.n_id[-1] += 2**32
    return batch


def halve(batch: Data) -> Data:
    batch.n_id = batch.n_id / 2
    return batch


@pytest.mark.parametrize("by_worker", [False, True])
@pytest.mark.parametrize(
    ("change", "transform", "words"),
    [
        (turn, None, "begins with the nodes .*, and its seeds are .*: nobody can tell whose labels"),
        (miscount, None, r"nodes with 8 seeds, and num_sampled_nodes counts \[2, 1\]"),
        (None, invent, "holds node 99 of a graph of 60 nodes"),
        (None, wrap, "holds node 42949673.. of a graph of 60 nodes"),
        (None, halve, "n_id holds float32"),
        (None, lambda batch: (batch.x, batch.y), "tuple that does not say which nodes it holds"),
    ],
    ids=["other seeds", "other hops", "other nodes", "far nodes", "no numbers", "no nodes"],
)
def test_a_batch_whose_nodes_nobody_can_tell_stops_the_loop(
    run: Run, by_worker: bool, change: Any, transform: Any, words: str
) -> None:
    graph = make_graph()
    sampler = FewNeighbours(graph) if change is None else Elsewhere(FewNeighbours(graph), change)
    loader = node_loader(graph, sampler=sampler, transform=transform, filter_per_worker=by_worker)
    run.watch(loader, role="train")
    with pytest.raises(CaptureError, match=words):
        next(iter(loader))


@pytest.mark.parametrize("by_worker", [False, True])
def test_a_batch_that_could_not_be_made_of_its_nodes_is_said_to_be_unread(run: Run, log: Read, by_worker: bool) -> None:
    calls = []

    def fails_once(batch: Data) -> Data:
        calls.append(batch)
        if len(calls) == 2:
            raise OSError("the features are gone")
        return batch

    loader = run.watch(node_loader(make_graph(), transform=fails_once, filter_per_worker=by_worker), role="train")
    batches = iter(loader)
    first = next(batches)
    with pytest.raises(OSError, match="the features are gone"):
        next(batches)
    rest = list(batches)
    run.close()
    told = log(run.path)
    unread = [e["parameters"] for e in told.kind("sampler") if e["sampler"] == "unread"]
    assert unread == [{"batch": 1}]
    uses = said(told)
    assert [uses[key].seeds for key in sorted(uses)] == [b.n_id[: b.batch_size].tolist() for b in (first, *rest)]


def test_drawn_nodes_whose_batch_never_comes_are_not_passed_over_in_silence(run: Run) -> None:
    class Own(NodeLoader):
        def _get_iterator(self) -> Any:
            return torch.utils.data.DataLoader._get_iterator(self)  # the batch is made elsewhere

    graph = make_graph()
    batches = iter(run.watch(Own(graph, FewNeighbours(graph), batch_size=8, filter_per_worker=False), role="train"))
    next(batches)
    with pytest.raises(CaptureError, match="before the batch of those drawn before them"):
        next(batches)


def test_loaders_that_no_run_watches_are_left_alone(run: Run) -> None:
    graph = make_graph()
    run.watch(node_loader(graph), role="train")
    other = node_loader(graph, "val_mask", sampler=Elsewhere(FewNeighbours(graph), turn))
    assert len(list(other)) == 2
    assert other(torch.arange(3)).batch_size == 3
    run.close()
    assert len(list(run_loader := node_loader(graph))) == 4
    assert run_loader(torch.arange(3)).batch_size == 3


@pytest.mark.parametrize("by_worker", [False, True])
def test_what_reading_a_batch_of_nodes_takes_counts_as_the_recording_s_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_worker: bool
) -> None:
    read = SampledNodes.read

    def slow(*args: Any) -> Any:
        time.sleep(0.05)
        return read(*args)

    monkeypatch.setattr(SampledNodes, "read", slow)
    with own_time() as meter, start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        loader = run.watch(node_loader(make_graph(), filter_per_worker=by_worker), role="train")
        start = meter.seconds
        batches = len(list(loader))
        assert 0.05 * batches <= meter.seconds - start


@pytest.mark.parametrize("seed", range(8))
def test_steps_to_the_seeds_are_those_of_breadth_first_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 30))
    edges = torch.tensor(rng.integers(0, count, (2, int(rng.integers(0, 60)))))
    seeds = rng.choice(count, int(rng.integers(1, count + 1)), replace=False)
    for most in (None, 1, 3):
        truth = dict.fromkeys(seeds.tolist(), 0)
        step = 0
        while step != most:
            step += 1
            found = {a for a, b in edges.T.tolist() if truth.get(b) == step - 1} - truth.keys()
            if not found:
                step -= most is None
                break
            truth |= dict.fromkeys(found, step)
        beyond = (step if most is None else most) + 1
        assert steps_to(edges, count, seeds, most).tolist() == [truth.get(node, beyond) for node in range(count)]
