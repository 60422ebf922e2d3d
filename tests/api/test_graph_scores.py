"""Contributions of the training nodes of a graph, recorded beside its training, computed again, and made anew."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

from fgtrac.api.explanation import SAMPLED
from fgtrac.api.ledger import read_ledger, state_path
from fgtrac.api.rescore import scores_demand
from fgtrac.api.run import start_run
from fgtrac.api.trace import open_for_verification
from fgtrac.capture.checkpoint import load_state
from fgtrac.capture.graph import GraphNodes
from fgtrac.errors import ScoreError
from fgtrac.score.cache import Cache
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.report import Finding, Verdict
from graph_trace import ICONS, GraphTrace, forward
from graphs import node_loader


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> GraphTrace:
    made = GraphTrace(tmp_path_factory.mktemp("graph"))
    made.record(dtype="float32")
    return made


@pytest.fixture
def blank(tmp_path: Path) -> GraphTrace:
    return GraphTrace(tmp_path)


def gradients(model: nn.Module, made: GraphTrace, mask: str) -> np.ndarray:
    """(nodes of the mask, numbers): each node's gradient in the head, by a pass over the whole graph for it alone."""
    found = []
    for node in made.graph[mask].nonzero():
        loss = cross_entropy(*made.forward(model, node))
        parts = torch.autograd.grad(loss, [model.head.weight, model.head.bias])
        found.append(torch.cat([parts[0], parts[1][:, None]], dim=1).flatten().double().numpy())
    return np.stack(found)


def finding(made: GraphTrace, check: str, *demands: Any) -> Finding:
    trace = open_for_verification(made.path, key=str(made.folder / "key.pem"))
    return next(f for f in trace.verify(demands=demands).findings if f.check == check)


def test_scores_are_those_of_each_nodes_gradient_over_its_full_neighbourhood(scored: GraphTrace) -> None:
    model, trace = scored.model().eval(), TraceDir.open(scored.path)
    truth = np.zeros((30, 15))
    for state in read_ledger(trace).states:
        load_state(model, trace.read(state_path(state)), "it")
        truth += 0.2 * gradients(model, scored, "train_mask") @ gradients(model, scored, "test_mask").T
    named = [f'graph:key:"icon-{node}"' for node in scored.graph.test_mask.nonzero()[:, 0].tolist()]
    told = scored.trace.scores(*named)
    column = {f'graph:key:"icon-{node}"': n for n, node in enumerate(scored.graph.train_mask.nonzero()[:, 0].tolist())}
    order = [column[scored.trace._namer.name_of(row.tobytes())] for row in told.ids]  # type: ignore[index]
    assert sorted(order) == list(range(30))
    assert np.abs(told.scores - truth[order]).max() < 1e-5 * np.abs(truth).max()


def test_they_are_kept_as_two_factors_though_the_head_sees_all_nodes(scored: GraphTrace) -> None:
    trace = TraceDir.open(scored.path)
    ledger = read_ledger(trace)
    cache = Cache(trace, ledger.artifacts, ledger.states)
    assert [(layer.name, layer.form) for layer in cache.layers] == [("head", "factored")]
    assert [len(cache.rows(role)) for role in ("train", "validation", "test")] == [30, 15, 15]


def test_recorded_scores_hold_when_they_are_computed_again(scored: GraphTrace) -> None:
    found = finding(scored, "contributions")
    assert (found.verdict, found.words) == (
        Verdict.HOLDS,
        "60 scores in 2 entries were computed again from the factors in the log",
    )


def made_anew(made: GraphTrace, graph: Data, passes: list[int]) -> Finding:
    """What is said of all scores where this graph is given; `passes` takes how many nodes each pass was toward."""

    def counted(model: nn.Module, nodes: torch.Tensor) -> tuple[Any, Any]:
        passes.append(len(nodes))
        return forward(model, nodes, graph)

    def again(run: Any) -> nn.Module:
        run.register(graph, "train_mask", key=ICONS)
        data = {"train": GraphNodes(graph, "train_mask"), "validation": GraphNodes(graph, "val_mask")}
        run.score_with(loss=nn.CrossEntropyLoss(), forward=counted, batch_size=64, **data)
        return made.model()

    return finding(made, "scores", scores_demand(1000, 1, again))


def test_recorded_scores_hold_when_they_are_made_anew_from_graph_and_model(scored: GraphTrace) -> None:
    passes: list[int] = []
    found = made_anew(scored, scored.graph, passes)
    assert found.verdict is Verdict.HOLDS, found.words
    assert max(passes) == 30  # all training nodes in one pass, as batch_size says


def test_scores_of_another_graph_are_refuted(scored: GraphTrace) -> None:
    other = copy.copy(scored.graph)
    other.x = other.x.clone()
    other.x[int(other.edge_index[0, 0])] += 1  # a neighbour of the nodes that are scored
    found = made_anew(scored, other, [])
    assert found.verdict is Verdict.REFUTED
    assert "would be" in found.words


def test_the_training_is_the_same_with_and_without(blank: GraphTrace, tmp_path: Path) -> None:
    weights = []
    for name, is_scored in (("with", True), ("without", False)):
        model = blank.model()
        with start_run(tmp_path / name, key=tmp_path / "key.pem", keep="all") as run:
            blank.register(run)
            if is_scored:
                run.score_with(**blank.scored)
            blank.fit(run, model)
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("size", [7, 30])
def test_factors_do_not_depend_on_the_size_of_batches(blank: GraphTrace, scored: GraphTrace, size: int) -> None:
    blank.record(dtype="float32", batch_size=size)
    for made in (blank, scored):
        assert len(made.trace._explainer.cache().states) == 2
    first, second = (made.trace.scores("role:test") for made in (blank, scored))
    by_name = dict(zip(names(scored, second.ids), second.scores[:, 0].tolist(), strict=True))
    assert first.scores[:, 0].tolist() == pytest.approx([by_name[name] for name in names(blank, first.ids)], rel=1e-3)


def names(made: GraphTrace, ids: np.ndarray) -> list[str]:
    return [str(made.trace._namer.name_of(row.tobytes())) for row in ids]


def test_messages_behind_the_head_are_refused_before_the_checkpoint_is_recorded(blank: GraphTrace) -> None:
    def mixed(model: nn.Module, nodes: torch.Tensor) -> tuple[Any, Any]:
        scores = model(blank.graph.x, blank.graph.edge_index)
        passed = scores.index_add(0, blank.graph.edge_index[1], scores[blank.graph.edge_index[0]])
        return passed[nodes], blank.graph.y[nodes]

    model = blank.model()
    with start_run(blank.folder / "run", key=blank.folder / "key.pem", keep="all") as run:
        blank.register(run)
        run.score_with(**blank.scored | {"forward": mixed})
        with pytest.raises(ScoreError, match=r"rows of layer 'head' feed several samples.*message-passing"):
            run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.2))
    assert not read_ledger(TraceDir.open(blank.path)).states


def test_messages_behind_the_head_among_test_nodes_alone_leave_no_scores(blank: GraphTrace) -> None:
    """The first batch, of training nodes, has none."""
    graph, edges = blank.graph, blank.graph.edge_index
    edges = edges[:, graph.test_mask[edges].all(0)]
    assert edges.shape[1]

    def mixed(model: nn.Module, nodes: torch.Tensor) -> tuple[Any, Any]:
        scores = model.head(pad(graph.x[nodes], (0, 3)))  # type: ignore[operator]
        between, _ = subgraph(nodes, edges, relabel_nodes=True, num_nodes=60)
        return scores.index_add(0, between[1], 0.5 * scores[between[0]]), graph.y[nodes]

    model = blank.model()
    with start_run(blank.folder / "run", key=blank.folder / "key.pem", keep="all") as run:
        blank.register(run)
        run.score_with(**blank.scored | {"forward": mixed})
        with pytest.warns(RuntimeWarning, match=r"is not scored: .* rows of layer 'head' feed several samples"):
            run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.2))
    state = read_ledger(TraceDir.open(blank.path)).states[0]
    assert not list((blank.path / state.folder).glob("*"))


def test_a_loader_that_draws_neighbours_is_no_data_to_score(blank: GraphTrace) -> None:
    with start_run(blank.folder / "run", key=blank.folder / "key.pem") as run:
        blank.register(run)
        with pytest.raises(ScoreError, match="draws other neighbours at each pass; give GraphNodes"):
            run.score_with(**blank.scored | {"train": node_loader(blank.graph)})


def test_an_explanation_says_that_training_drew_its_neighbours(blank: GraphTrace, scored: GraphTrace) -> None:
    model, graph = blank.model(), blank.graph
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    with start_run(blank.folder / "run", key=blank.folder / "key.pem", keep="all") as run:
        blank.register(run)
        run.score_with(**blank.scored)
        for batch in run.watch(node_loader(graph), role="train"):
            optimizer.zero_grad()
            cross_entropy(model(batch.x, batch.edge_index)[: batch.batch_size], batch.y[: batch.batch_size]).backward()
            optimizer.step()
        run.checkpoint(model, optimizer)
    check_said(blank, scored)


def test_it_says_so_where_only_later_epochs_drew_them(blank: GraphTrace, scored: GraphTrace) -> None:
    model, graph = blank.model(), blank.graph
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    with start_run(blank.folder / "run", key=blank.folder / "key.pem", keep="all") as run:
        blank.register(run)
        run.score_with(**blank.scored)
        blank.fit(run, model)
        for batch in run.watch(node_loader(graph), role="train"):
            optimizer.zero_grad()
            cross_entropy(model(batch.x, batch.edge_index)[: batch.batch_size], batch.y[: batch.batch_size]).backward()
            optimizer.step()
    check_said(blank, scored)


def check_said(drawn: GraphTrace, scored: GraphTrace) -> None:
    told, plain = drawn.trace.explain("role:test"), scored.trace.explain("role:test")
    assert SAMPLED in str(told)
    assert told.as_json()["neighbours_sampled"] is True
    assert SAMPLED not in str(plain)
    assert "neighbours_sampled" not in plain.as_json()
