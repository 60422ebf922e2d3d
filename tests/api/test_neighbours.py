"""What a node's neighbours do to its loss: against the committed states, with names and words, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch_geometric.nn import PairNorm

from fgtrac.api.erase import erase
from fgtrac.api.ledger import read_ledger, state_path
from fgtrac.api.neighbour_answer import CAUTION, NeighbourContributions
from fgtrac.api.run import start_run
from fgtrac.capture.checkpoint import load_state
from fgtrac.capture.graph import GraphNodes
from fgtrac.errors import ScoreError, TamperError
from fgtrac.store.trace_dir import TraceDir
from graph_trace import ICONS, GraphTrace, forward
from graphs import Network, make_graph

LOSS = nn.CrossEntropyLoss()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> GraphTrace:
    made = GraphTrace(tmp_path_factory.mktemp("graph"))
    made.record(factors="later")
    return made


@pytest.fixture(scope="module")
def node(recorded: GraphTrace) -> int:
    """A test node with many neighbours."""
    degrees = torch.bincount(recorded.graph.edge_index[1], minlength=60)
    return int(torch.where(recorded.graph.test_mask, degrees, -1).argmax())


def ask(made: GraphTrace, node: int, **options: Any) -> NeighbourContributions:
    given = {"model": made.model(), "data": made.graph, "loss": LOSS, "forward": made.forward, "key": ICONS}
    return made.trace.neighbour_contributions(f'graph:key:"icon-{node}"', **given | options)


def test_each_number_is_that_of_the_committed_state(recorded: GraphTrace, node: int) -> None:
    told, trace, model = ask(recorded, node, k=None), TraceDir.open(recorded.path), recorded.model().eval()
    states = read_ledger(trace).states
    assert told.steps == tuple(state.step for state in states) == (3, 9)
    x = recorded.graph.x
    mean = x[recorded.graph.train_mask].mean(0)

    def loss(features: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(features, recorded.graph.edge_index)[[node]], recorded.graph.y[[node]])

    for place, state in enumerate(states):
        load_state(model, trace.read(state_path(state)), "it")
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        plain = float(loss(x).detach())
        assert told.losses[place] == pytest.approx(plain, rel=1e-6)
        for row in (told.itself, *told.rows):
            replaced = x.clone()
            replaced[row.node] = mean
            assert row.occlusions[place] == pytest.approx(float(loss(replaced).detach()) - plain, abs=2e-6)
            assert row.estimates[place] == pytest.approx(float(gradient[row.node] @ (mean - x[row.node])), abs=2e-6)
    assert told.itself.node == node
    assert max(abs(row.occlusion) for row in told.rows) > 0.01


def test_the_receptive_field_is_what_two_steps_reach(recorded: GraphTrace, node: int) -> None:
    told, sends = ask(recorded, node, k=1), np.eye(60, dtype=np.int64)
    sources, targets = recorded.graph.edge_index.numpy()
    sends[targets, sources] = 1
    reached = [np.flatnonzero(np.linalg.matrix_power(sends, steps)[node]) for steps in range(3)]
    for hop in (1, 2):
        assert told.nodes[told.hops == hop].tolist() == sorted(set(reached[hop]) - set(reached[hop - 1]))
    assert set(told.hops.tolist()) == {1, 2}
    assert [(one.hop, one.nodes) for one in told.by_hop] == [(hop, int((told.hops == hop).sum())) for hop in (1, 2)]
    assert sum(one.estimate for one in told.by_hop) == pytest.approx(float(told.estimates[-1].sum()), rel=1e-4)


def test_the_strongest_are_chosen_by_their_estimates_and_ordered_by_what_is_exact(
    recorded: GraphTrace, node: int
) -> None:
    whole, told = ask(recorded, node, k=None), ask(recorded, node, k=5)
    strongest = whole.nodes[np.argsort(-np.abs(whole.estimates[-1]), kind="stable")[:5]]
    assert {row.node for row in told.rows} == set(strongest.tolist())
    exact = [row.occlusion for row in told.rows]
    assert exact == sorted(exact, reverse=True)
    assert [row.node for row in told.lowered] == [row.node for row in told.rows if row.occlusion > 0]
    assert [row.node for row in told.raised] == [row.node for row in reversed(told.rows) if row.occlusion < 0]
    for row in told.rows:
        assert row.name == f'graph:key:"icon-{row.node}"'
        masks = {"train": "train_mask", "validation": "val_mask", "test": "test_mask"}
        assert row.roles == tuple(role for role, mask in masks.items() if recorded.graph[mask][row.node])
        assert row.hop in (1, 2)


def test_the_fidelity_of_estimates_is_their_rank_correlation_with_occlusions(recorded: GraphTrace, node: int) -> None:
    told = ask(recorded, node, k=None)
    for place, known in enumerate(told.fidelity):
        pairs = [(row.estimates[place], row.occlusions[place]) for row in told.rows]
        ranks = np.argsort(np.argsort(np.array(pairs), axis=0), axis=0)
        assert known == pytest.approx(float(np.corrcoef(ranks.T)[0, 1]), abs=1e-6)
    assert ask(recorded, node, k=2).fidelity == (None, None)


def test_words_and_json_say_what_it_is_and_what_it_is_not(recorded: GraphTrace, node: int) -> None:
    told = ask(recorded, node, k=4, checkpoints=[9])
    text = str(told)
    assert text.endswith(CAUTION)
    assert "this is no training contribution" in text
    assert "replaced by the mean of 30 training nodes" in text
    assert f"4 of {len(told.nodes)} nodes of its receptive field" in text
    first = told.rows[0]
    assert f'graph:key:"icon-{first.node}" (hop {first.hop}, {first.roles[0]}) {first.occlusion:+.4g}' in text
    said = json.loads(json.dumps(told.as_json(), allow_nan=False))
    assert (said["kind"], said["caution"], said["steps"]) == ("neighbour contributions", CAUTION, [9])
    assert [row["node"] for row in said["rows"]] == [row.node for row in told.rows]
    assert said["receptive_field"] == len(told.nodes)


def test_a_node_without_neighbours_has_none(recorded: GraphTrace) -> None:
    told = ask(recorded, 59)
    assert (len(told.nodes), told.rows, told.by_hop) == (0, (), ())
    assert told.itself.occlusion != 0
    assert "0 of 0 nodes" in str(told)


def test_what_acts_beyond_the_edges_is_said_so(tmp_path: Path) -> None:
    class Normalised(Network):
        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            return self.head(PairNorm()(self.first(x, edge_index)))

    made = GraphTrace(tmp_path)
    made.model = Normalised  # type: ignore[method-assign]
    made.record(factors="later")
    told = ask(made, 59, k=3)
    assert len(told.nodes) == 59
    assert {row.hop for row in told.rows} == {None}
    assert "(beyond the edges, " in str(told)


def test_several_features_are_replaced_together(tmp_path: Path) -> None:
    made = GraphTrace(tmp_path)
    graph = made.graph
    graph.image, graph.words = graph.x[:, :2].clone(), graph.x[:, 2:].clone()

    def both(model: nn.Module, nodes: torch.Tensor, of: Any = graph) -> tuple[Any, Any]:
        return model(torch.cat([of.image, of.words], 1), of.edge_index)[nodes], of.y[nodes]

    made.record(factors="later", forward=both)
    one = ask(made, 7, k=None)
    two = ask(made, 7, k=None, forward=both, features=("image", "words"))
    assert two.features == ("image", "words")
    assert [row.occlusions for row in two.rows] == [pytest.approx(row.occlusions, abs=2e-6) for row in one.rows]
    with pytest.raises(ScoreError, match="the loss does not depend on 'x'"):
        ask(made, 7, forward=both)


def test_ids_under_the_keys_of_subjects_are_found_again(tmp_path: Path) -> None:
    made = GraphTrace(tmp_path)
    owners = [f"owner-{node % 7}" for node in range(60)]
    with start_run(made.folder / "run", key=made.folder / "key.pem", keep="all") as run:
        run.register(made.graph, "train_mask", role="train", subject=owners, name="icons")
        run.checkpoint(made.model())
    asked = {"model": made.model(), "data": GraphNodes(made.graph), "loss": LOSS, "forward": made.forward}
    told = made.trace.neighbour_contributions("icons:7", **asked, name="icons", subject=owners, k=3)
    assert all(row.name == f"icons:{row.node}" for row in told.rows)
    with pytest.raises(ValueError, match="other samples"):
        made.trace.neighbour_contributions("icons:7", **asked, name="icons", subject=owners[::-1])


def test_nodes_of_an_erased_subject_are_left_out_of_the_comparison(tmp_path: Path) -> None:
    made = GraphTrace(tmp_path)
    owners = [f"owner-{node % 7}" for node in range(60)]
    with start_run(made.folder / "run", key=made.folder / "key.pem", keep="all") as run:
        run.register(made.graph, "train_mask", role="train", subject=owners)
        run.checkpoint(made.model())

    def told(subject: list[str], node: int = 7) -> NeighbourContributions:
        asked = {"model": made.model(), "data": made.graph, "loss": LOSS, "forward": made.forward}
        return GraphTrace(tmp_path).trace.neighbour_contributions(f"graph:{node}", **asked, subject=subject, k=None)

    before = told(owners)
    erase(made.path, subject="owner-3", key=made.folder / "key.pem")
    after, mine = told(owners), {node for node in range(60) if node % 7 == 3}
    assert after.nodes.tolist() == before.nodes.tolist()
    assert mine & {row.node for row in after.rows}
    for row in after.rows:
        assert (row.id is None) == (row.node in mine)
        if row.node in mine:
            assert (row.name, row.roles) == (None, ())
            assert row.words.startswith(f"node {row.node}, of an erased subject (hop ")
    kept = torch.tensor([node not in mine for node in range(60)])
    assert after.baseline_nodes == int((made.graph.train_mask & kept).sum()) < before.baseline_nodes
    assert after.basis.endswith(f"; {len(mine)} nodes, of erased subjects, could not be compared")
    assert json.loads(json.dumps(after.as_json()))["erased_nodes"] == len(mine)
    strangers = [None if owner == "owner-3" else owner for owner in owners]
    for subject in (owners[::-1], strangers, ["owner-3"] * 60, [*owners[:3], "nobody", *owners[4:59], "owner-0"]):
        with pytest.raises(ValueError, match="other samples"):
            told(subject)
    with pytest.raises(ValueError, match=r"is not known to run\.vault: it was never registered, or it was erased"):
        told(owners, 3)


def test_model_graph_and_generators_stay_as_they_are(recorded: GraphTrace, node: int) -> None:
    model = recorded.model().train()
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    x = recorded.graph.x
    values = x.clone()
    ask(recorded, node, model=model)
    assert recorded.graph.x is x
    assert torch.equal(x, values)
    assert model.training
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_progress_counts_forward_passes(recorded: GraphTrace, node: int) -> None:
    told: list[tuple[int, int]] = []
    ask(recorded, node, k=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 8) for done in range(1, 9)]  # at two states, of three nodes and the target itself


def test_a_forward_pass_may_write_into_the_features_that_it_is_given(recorded: GraphTrace, node: int) -> None:
    def doubling(model: nn.Module, nodes: torch.Tensor, graph: Any) -> tuple[Any, Any]:
        graph.x.mul_(2)
        return forward(model, nodes, graph)

    def doubled(model: nn.Module, nodes: torch.Tensor, graph: Any) -> tuple[Any, Any]:
        graph.x = 2 * graph.x
        return forward(model, nodes, graph)

    one, other = (ask(recorded, node, forward=each) for each in (doubling, doubled))
    assert one.as_json() == other.as_json()


def test_features_that_are_also_read_from_elsewhere_are_refused(recorded: GraphTrace, node: int) -> None:
    def partly(model: nn.Module, nodes: torch.Tensor, graph: Any) -> tuple[Any, Any]:
        changed = copy.copy(graph)
        changed.x = 0.5 * graph.x + 0.5 * recorded.graph.x
        return forward(model, nodes, changed)

    with pytest.raises(ScoreError, match="forward also reads 'x' from elsewhere than the graph that it is given"):
        ask(recorded, node, forward=partly)
    assert not recorded.graph.x.requires_grad


def test_what_was_compared_with_the_log_is_said(recorded: GraphTrace, node: int) -> None:
    """The log has ids of nodes: another graph of as many nodes has them too."""
    told = ask(recorded, node, data=make_graph(seed=1))
    assert "the graph's nodes have the ids of the log, its features and edges are as they were given" in str(told)


def test_what_makes_no_sense_is_refused(recorded: GraphTrace, node: int) -> None:
    def all_nodes(model: nn.Module, nodes: torch.Tensor, graph: Any) -> tuple[Any, Any]:
        return model(graph.x, graph.edge_index), graph.y

    def refused(kind: type[Exception], words: str, **options: Any) -> None:
        with pytest.raises(kind, match=words):
            ask(recorded, node, **options)

    refused(ValueError, "no state is kept at step 4; there are", checkpoints=[4])
    refused(ValueError, "no state is kept at step", checkpoints=[])
    refused(ValueError, "no state is kept at step '3'", checkpoints=["3"])
    refused(ValueError, "k=0", k=0)
    refused(ValueError, "'colour', which is no tensor of floating point", features="colour")
    refused(ValueError, "'y', which is no tensor of floating point", features=("x", "y"))
    refused(ValueError, "features names nothing", features=())
    refused(ValueError, "the trace has other samples", data=make_graph(40), key=None)
    refused(TypeError, "no graph", data=[1, 2])
    refused(ScoreError, "60 losses for 1 node", forward=all_nodes)
    refused(ScoreError, "another architecture", model=Network(9))
    refused(TypeError, "model= takes a torch.nn.Module", model=forward)
    for name in (None, "class:1", "role:test"):
        with pytest.raises(ValueError, match="is no node; give the name of one"):
            recorded.trace.neighbour_contributions(
                name,
                model=recorded.model(),
                data=recorded.graph,
                loss=LOSS,
                forward=forward,
                key=ICONS,  # type: ignore
            )
    with pytest.raises(ValueError, match="is no node of this graph"):
        recorded.trace.neighbour_contributions(
            'graph:key:"icon-99"', model=recorded.model(), data=recorded.graph, loss=LOSS, forward=forward, key=ICONS
        )


def test_a_graph_without_training_nodes_has_no_baseline(tmp_path: Path) -> None:
    made = GraphTrace(tmp_path)
    with start_run(made.folder / "run", key=made.folder / "key.pem", keep="all") as run:
        run.register(made.graph, "test_mask", role="test", key=ICONS)
        run.checkpoint(made.model())
    with pytest.raises(ValueError, match="no node of the graph has the role train"):
        ask(made, 7)


def test_a_state_that_is_not_the_one_of_the_log_is_refused(tmp_path: Path) -> None:
    made = GraphTrace(tmp_path)
    made.record(factors="later")
    path = made.path / state_path(read_ledger(TraceDir.open(made.path)).states[0])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(TamperError, match="is not the model state that the log names"):
        ask(made, 7)
