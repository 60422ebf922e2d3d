"""Graphs as data sets: which nodes are meant, under which root they stand, and what is refused with words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import DataLoader as GraphLoader
from torch_geometric.loader import LinkNeighborLoader, RandomNodeLoader

from fgtrac import GraphNodes
from fgtrac.api.run import Run
from fgtrac.errors import CaptureError
from graphs import Network, make_graph, node_loader

Read = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("nodes", "numbers"),
    [
        (None, range(5)),
        ("mask", [1, 4]),
        (torch.tensor([True, False, False, True, False]), [0, 3]),
        (np.array([False, False, True, False, False]), [2]),
        ([4, 0, 4], [4, 0, 4]),
        (torch.tensor([3], dtype=torch.int32), [3]),
        (range(2), [0, 1]),
    ],
)
def test_rows_are_the_numbers_of_the_nodes_that_are_meant(nodes: Any, numbers: Any) -> None:
    data = Data(x=torch.zeros(5, 1), edge_index=torch.zeros(2, 0), mask=torch.tensor([False, True, False, False, True]))
    chosen = GraphNodes(data, nodes)
    assert [chosen[row] for row in range(len(chosen))] == list(numbers)
    assert all(type(chosen[row]) is int for row in range(len(chosen)))


@pytest.mark.parametrize(
    ("nodes", "kind", "words"),
    [
        ("train", ValueError, "no attribute 'train'"),
        ([True, False], ValueError, r"mask of shape \(2,\), and the graph has 5 nodes"),
        ([0, 5], ValueError, "node 5, and the graph has 5 nodes"),
        ([-1], ValueError, "node -1"),
        ([0.5], TypeError, "float64"),
        ([[0]], TypeError, r"shape \(1, 1\)"),
        ([], ValueError, "none of the graph's 5 nodes"),
        (torch.zeros(5, dtype=torch.bool), ValueError, "none of the graph's 5 nodes"),
    ],
)
def test_nodes_that_the_graph_does_not_have_are_refused(nodes: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        GraphNodes(SimpleNamespace(num_nodes=5, edge_index=torch.zeros(2, 0)), nodes)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ([1, 2], TypeError, "list is no graph"),
        (torch.zeros(3), TypeError, "Tensor is no graph"),
        (HeteroData(paper={"x": torch.zeros(2, 1)}), TypeError, "several node types"),
        (Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=0), ValueError, "0 nodes"),
    ],
)
def test_what_is_no_graph_of_one_kind_of_nodes_is_refused(
    run: Run, data: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        GraphNodes(data)
    if kind is TypeError and not isinstance(data, list | torch.Tensor):
        with pytest.raises(kind, match=words):
            run.register(data)


def test_every_node_is_registered_once_and_roles_are_given_to_those_that_are_named(run: Run, log: Read) -> None:
    graph = make_graph()
    run.register(graph, "train_mask", role="train", subject="y")
    run.register(graph, graph.test_mask, role="test")
    run.register(GraphNodes(graph, [7]), role="excluded")
    with pytest.raises(ValueError, match=r"of 9 nodes is another object .* a transform may have made a copy"):
        run.watch(node_loader(make_graph(nodes=9)), role="train")
    run.register(make_graph(nodes=9), name="second")
    run.close()
    told = log(run.path)
    assert [(e["name"], e["rows"], e.get("content")) for e in told.kind("dataset")] == [
        ("graph", 60, None), ("second", 9, None)
    ]  # fmt: skip
    roles = {e["role"]: sorted(told.keys(e["block"], e["ordinals"])) for e in told.kind("roles")}
    masks = {"train": graph.train_mask, "test": graph.test_mask}
    assert roles == {role: mask.nonzero().flatten().tolist() for role, mask in masks.items()} | {"excluded": [7]}
    assert {(key, subject) for dataset, key, subject in told.names.values() if dataset == "graph"} == {
        (node, str(graph.y[node].item())) for node in range(60)
    }


def test_nodes_are_followed_through_views_loaders_predictions_and_stages(run: Run, log: Read) -> None:
    graph = make_graph()
    part = Subset(GraphNodes(graph, "val_mask"), [2, 0])
    wanted = graph.val_mask.nonzero().flatten()[[2, 0]].tolist()
    assert [batch.tolist() for batch in run.watch(DataLoader(part, batch_size=2))] == [wanted]
    run.predictions(part, torch.zeros(2))
    run.predictions(graph, torch.zeros(1), positions=[11])
    kept = run.transform("odd", graph).filter(lambda node: node % 2)
    assert list(kept) == list(range(1, 60, 2))
    run.close()
    told = log(run.path)
    said = [sorted(told.keys(e["block"], e["ordinals"])) for e in [*told.kind("use"), *told.kind("prediction")]]
    assert said == [sorted(wanted), sorted(wanted), [11]]
    assert [sorted(told.keys(e["block"], e["kept"])) for e in told.kind("transform") if "kept" in e] == [list(kept)]


def test_a_data_set_of_graphs_is_not_taken_for_a_graph(run: Run, log: Read) -> None:
    graphs = [make_graph(nodes=8, seed=seed) for seed in range(4)]
    assert len(list(run.watch(GraphLoader(graphs, batch_size=2)))) == 2
    run.close()
    assert [(e["name"], e["rows"]) for e in log(run.path).kind("dataset")] == [("list", 4)]


@pytest.mark.parametrize("takes_batch", [False, True])
def test_batches_of_whole_graphs_are_recognised_in_the_forward_pass(run: Run, log: Read, takes_batch: bool) -> None:
    """Classification of graphs: two batches wait, and the later one is trained on first."""
    graphs = [make_graph(nodes=8, seed=seed) for seed in range(8)]
    batches = list(run.watch(GraphLoader(graphs, batch_size=4), role="train"))

    class Pooled(Network):
        def forward(self, batch: Any, *edges: Any) -> torch.Tensor:  # type: ignore[override]
            return super().forward(*(batch, *edges) if edges else (batch.x, batch.edge_index))

    model = Pooled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in reversed(batches):
        optimizer.zero_grad()
        model(*[batch] if takes_batch else [batch.x, batch.edge_index]).mean().backward()
        optimizer.step()
    run.close()
    told = {batch: (step, sure) for (_, _, batch), (step, sure, _keys) in log(run.path).batches().items()}
    assert told == {1: (1, "exact"), 0: (2, "exact")}


def test_loaders_whose_items_are_no_samples_of_ours_are_refused(run: Run) -> None:
    graph = make_graph()
    for loader in (RandomNodeLoader(graph, num_parts=2), _over_links(graph)):
        with pytest.raises(CaptureError, match=r"LinkLoader|LinkNeighborLoader|RandomNodeLoader"):
            run.watch(loader)


def _over_links(graph: Data) -> Any:
    loader = LinkNeighborLoader.__new__(LinkNeighborLoader)  # its making asks for a compiled extension
    DataLoader.__init__(loader, range(5))
    return loader
