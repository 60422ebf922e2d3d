"""Which batches of a watched graph a run follows, whoever delivers them: and what it says of those that it does not."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data

from fgtrac.api.run import start_run
from fgtrac.errors import CaptureError
from graphs import Network, NodeUse, make_graph, node_loader, node_uses
from replays import CANNOT_TELL, HOLDS, replayed

Read = Callable[[Path], Any]


def said(log: Any) -> dict[tuple[int, ...], NodeUse]:
    return node_uses(log.kind("use"), lambda block, ordinal: log.keys(block, [ordinal])[0])


class Training:
    """A model and its optimizer; `nodes` has those of each batch that it took, sorted."""

    def __init__(self) -> None:
        self.model = Network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.nodes: list[list[int]] = []

    def take(self, batch: Data, mask: Any = None) -> None:
        """One update: by the first nodes of a sampled batch, or by those of a mask."""
        outputs, some = self.model(batch.x, batch.edge_index), slice(batch.batch_size) if mask is None else mask
        self.optimizer.zero_grad()
        cross_entropy(outputs[some], batch.y[some]).backward()
        self.optimizer.step()
        self.nodes.append(sorted(batch.n_id.tolist()) if mask is None else list(range(batch.num_nodes)))


def who_took_part(uses: dict[tuple[int, ...], NodeUse]) -> list[list[int]]:
    in_order = [uses[key] for key in sorted(uses, key=lambda key: key[-1])]
    return [sorted([*use.seeds, *set().union(*use.hops)]) for use in in_order]


def grow(graph: Data) -> None:
    """One more node, which no edge touches."""
    for name in ("x", "y", "train_mask"):
        graph[name] = torch.cat([graph[name], graph[name][-1:]])


def test_a_loader_that_is_built_anew_in_every_epoch_is_followed(tmp_path: Path, log: Read) -> None:
    graph, training = make_graph(), Training()
    with start_run(tmp_path / "run", key=tmp_path / "key.pem", flush_interval_s=3600.0) as run:
        loader = run.watch(node_loader(graph), role="train")
        for epoch in range(3):
            if epoch:
                loader = node_loader(graph)
                gc.collect()
            for batch in loader:
                training.take(batch)
        list(node_loader(graph, "val_mask"))
        other = start_run(tmp_path / "other", key=tmp_path / "key.pem")
        with pytest.raises(CaptureError, match=r"this graph is watched by the run run\.trace"):
            other.watch(node_loader(graph))
        other.watch(node_loader(graph, "val_mask"))
        other.close()
    told = log(tmp_path / "run.trace")
    uses = said(told)
    assert who_took_part(uses) == training.nodes
    assert sorted(key[:1] + key[2:4] for key in uses) == [(1, epoch, batch) for epoch in range(3) for batch in range(4)]
    assert {use.attribution for use in uses.values()} == {"exact"}
    assert told.kind("gap") == []
    assert replayed(tmp_path).verdict is HOLDS


@pytest.mark.parametrize(
    ("deliver", "words"),
    [
        (lambda loader: loader(torch.arange(3)), r"loader\(index\) delivers batches of watched data"),
        (
            lambda loader: list(copy.deepcopy(loader)),
            "or over a copy of the watched loader, delivers",
        ),
    ],
    ids=["called", "copied"],
)
@pytest.mark.parametrize("strict", [False, True])
def test_batches_past_the_loader_s_passes_are_said_to_be_unrecorded(
    tmp_path: Path, log: Read, deliver: Any, words: str, strict: bool
) -> None:
    with start_run(tmp_path / "run", key=tmp_path / "key.pem", strict=strict) as run:
        loader = run.watch(node_loader(make_graph()), role="train")
        if strict:
            with pytest.raises(CaptureError, match=words):
                deliver(loader)
        else:
            with pytest.warns(RuntimeWarning, match=words) as warned:
                deliver(loader)
            deliver(loader)
            assert len(warned) == 1
    assert len(log(tmp_path / "run.trace").kind("gap")) == (not strict)


def test_a_graph_that_has_grown_is_refused_and_what_was_recorded_stays(tmp_path: Path, log: Read) -> None:
    graph, training = make_graph(), Training()
    both = "the graph graph has 61 nodes, and was registered with 60"
    with start_run(tmp_path / "run", key=tmp_path / "key.pem", flush_interval_s=3600.0) as run:
        passes = run.full_batch(graph, "train_mask", hops=2, role="train")
        for epoch in range(3):
            if epoch < 2:
                for batch in passes:
                    training.take(batch, batch.train_mask)
                continue
            grow(graph)
            with pytest.raises(CaptureError, match=both):
                next(iter(passes))
            for role in ("train", None):
                with pytest.raises(CaptureError, match=both):
                    run.watch(node_loader(graph), role=role)
            with pytest.raises(CaptureError, match=both):
                run.register(graph, "train_mask", role="train")
    assert who_took_part(said(log(tmp_path / "run.trace"))) == training.nodes


def test_edges_that_do_not_tell_whether_they_changed_are_counted_in_every_pass(tmp_path: Path, log: Read) -> None:
    graph = make_graph()
    first, second = (set(graph.edge_index[0, graph.edge_index[1] == node].tolist()) - {10} for node in (10, 11))
    with torch.inference_mode():
        graph.edge_index = graph.edge_index.clone()
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        passes = run.full_batch(graph, [10], hops=1, role="train")
        list(passes)
        with torch.inference_mode():
            graph.edge_index[1] = torch.where(graph.edge_index[1] == 11, 10, graph.edge_index[1])
        list(passes)
    uses = said(log(tmp_path / "run.trace"))
    assert [uses[key].hops[0] for key in sorted(uses)] == [first, first | second]
    assert second - first


@pytest.mark.parametrize("how", ["same loader", "same iterator", "a full batch"])
@pytest.mark.parametrize("ahead", [False, True])
def test_what_a_function_of_modality_weights_reads_is_no_batch_of_the_loop_s(
    tmp_path: Path, log: Read, how: str, ahead: bool
) -> None:
    """Also where the loop holds a batch that it has not used yet, or has passed through the model."""
    graph, training = make_graph(), Training()
    lost = []

    def weigh(_model: Any) -> torch.Tensor:
        if how == "same iterator":
            lost.append(next(batches))
        else:
            list(loader if how == "same loader" else run.full_batch(graph, hops=2))
        return torch.ones(60, 1)

    with start_run(tmp_path / "run", key=tmp_path / "key.pem", keep="all") as run:
        loader = run.watch(node_loader(graph, batch_size=6), role="train")
        run.attention_with(weights=weigh, data=graph, modalities=["all"])
        batches = iter(loader)
        held = [next(batches)] if ahead else []
        for number, batch in enumerate(batches):
            held.append(batch)
            if number == 1:
                run.checkpoint(training.model, training.optimizer, val_loss=1.0)
            training.take(held.pop(0))
        for batch in held:
            training.take(batch)
    told = log(tmp_path / "run.trace")
    uses = said(told)
    assert who_took_part(uses) == training.nodes
    assert {(use.status, use.attribution) for use in uses.values()} == {("applied", "exact")}
    assert {key[0] for key in uses} == {1}
    assert told.kind("gap") == []
    assert len(told.kind("attention")) == 1
    assert [e["parameters"] for e in told.kind("sampler") if e["sampler"] == "unread"] == [
        {"batch": 2 + ahead} for _ in lost
    ]
    assert replayed(tmp_path).verdict is (CANNOT_TELL if lost else HOLDS)
