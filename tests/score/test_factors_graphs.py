"""Gradients of nodes that messages couple: each one's own, whatever nodes the head is applied to; else refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import GCNConv, Linear, MessagePassing, PairNorm

from fgtrac.errors import ScoreError
from fgtrac.score.factors import FactorPass
from fgtrac.score.gradients import concatenate
from fgtrac.score.layers import left_out
from fgtrac.score.untouched import untouched
from graphs import Network, make_graph
from score.models import check_explicit, factors

GRAPH = make_graph()
NODES = torch.randperm(60, generator=torch.Generator().manual_seed(4))[:24]


class Selecting(Network):
    """The head is applied to the nodes asked for only."""

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x, edge_index).relu()
        return self.head(self.second(hidden, edge_index).relu()[nodes])


class Normalised(Network):
    """All nodes together are normalised before the head."""

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.head(PairNorm()(self.first(x, edge_index)))


class Passing(MessagePassing):
    """Messages as they are, added up."""

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.propagate(edge_index, x=x)


class MixedBehind(Network):
    """The head's outputs are passed on as messages."""

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        scores = self.head(self.first(x, edge_index).relu())
        return scores + Passing()(scores, edge_index)


def of_all(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """Outputs of all nodes, of which those of the batch are taken."""
    return model(GRAPH.x, GRAPH.edge_index)[batch[0]], GRAPH.y[batch[0]]


def of_some(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """Outputs of the batch's nodes alone."""
    return model(GRAPH.x, GRAPH.edge_index, batch[0]), GRAPH.y[batch[0]]


@pytest.mark.parametrize(("kind", "forward"), [(Network, of_all), (Selecting, of_some), (Normalised, of_all)])
def test_each_nodes_gradient_is_its_own(kind: type[nn.Module], forward: Any) -> None:
    torch.manual_seed(0)
    prepared = check_explicit(kind(), (NODES,), F.cross_entropy, forward=forward)
    assert [(layer.name, layer.form) for layer in prepared.layers] == [("head", "factored")]


def test_gradients_do_not_depend_on_how_nodes_are_cut_into_batches() -> None:
    torch.manual_seed(0)
    model = Network()
    whole = factors(model, (NODES,), F.cross_entropy, forward=of_all)[1].gradients[0]
    with untouched(model):
        prepared = FactorPass.prepare(model, (NODES[:5],), loss=F.cross_entropy, forward=of_all)
        parts = [prepared((NODES[start : start + 5],)).gradients[0] for start in range(0, 24, 5)]
        everyone = prepared((torch.arange(60),)).gradients[0]
    np.testing.assert_allclose(concatenate(parts).whole(), whole.whole(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(everyone.rows(NODES.numpy()).whole(), whole.whole(), rtol=1e-5, atol=1e-7)


def test_few_nodes_are_kept_whole_until_many_show_that_each_has_one_row() -> None:
    torch.manual_seed(0)
    for many, form in ((15, "dense"), (16, "factored")):
        prepared = check_explicit(Network(), (NODES[:many],), F.cross_entropy, forward=of_all)
        assert prepared.layers[0].form == form


def test_messages_behind_the_head_are_refused_in_words() -> None:
    torch.manual_seed(0)
    with pytest.raises(ScoreError, match=r"rows of layer 'head' feed several samples.*a message-passing step does"):
        factors(MixedBehind(), (NODES,), F.cross_entropy, forward=of_all)


class Pairs(nn.Module):
    """A head on each row, behind which some rows take a share of another's output."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, sender: int | None, receiver: int, share: float) -> torch.Tensor:
        scores = self.head(self.body(x).relu())
        if sender is None:
            return scores
        given = torch.zeros_like(scores)
        given[receiver] = scores[sender]
        return scores + share * given


@pytest.mark.parametrize("layer", [None, "all"])
@pytest.mark.parametrize("share", [1.0, 0.1])
@pytest.mark.parametrize("pair", [(0, 1), (199, 0), (3, 67), (128, 64)])  # also such as agree in one digit to base 64
def test_a_message_behind_the_head_in_a_later_batch_only_is_refused_there(
    pair: tuple[int, int], share: float, layer: Any
) -> None:
    torch.manual_seed(0)
    x, y, model = torch.randn(200, 5), torch.arange(200) % 3, Pairs()

    def forward(model: nn.Module, batch: Any) -> tuple[Any, Any]:
        inputs, sender = batch
        return model(inputs, sender, pair[1], share), y[: len(inputs)]

    with untouched(model):
        prepared = FactorPass.prepare(model, (x[:50], None), loss=F.cross_entropy, forward=forward, layer=layer)
        assert all(plan.order == "major" for plan in prepared._plans)
        prepared((x, None))
        with pytest.raises(ScoreError, match=r"rows of layer '(head|body)' feed several samples"):
            prepared((x, pair[0]))


def test_nodes_far_from_each_other_have_several_rows_behind_which_messages_pass() -> None:
    """Their gradients are sums over these rows, and exact; with a node nearby they would be refused."""
    torch.manual_seed(0)
    reached = torch.zeros(60, 60)
    reached[GRAPH.edge_index[1], GRAPH.edge_index[0]] = 1
    reached += torch.eye(60)
    first = int(reached.sum(1).argmin())
    apart = next(node for node in range(60) if not (reached[node] * reached[first]).any() and reached[node].sum() > 2)
    prepared = check_explicit(MixedBehind(), (torch.tensor([first, apart]),), F.cross_entropy, forward=of_all)
    assert prepared.layers[0].form == "dense"


def test_torch_geometrics_own_linear_layers_are_not_scored_and_that_is_said() -> None:
    torch.manual_seed(0)

    class Convolving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = GCNConv(5, 3)

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            return self.one(x, edge_index)

    with pytest.raises(
        ScoreError,
        match=r"layer of torch \(.*end the model with a torch.nn.Linear",
    ):
        factors(Convolving(), (NODES,), F.cross_entropy, forward=of_all)


def test_a_head_of_torch_geometrics_own_is_named_as_what_messages_pass_before() -> None:
    """The last layer of torch is in front of the messages; the head behind them is not one."""
    torch.manual_seed(0)

    class Encoding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.passing, self.head = nn.Linear(5, 8), Passing(), Linear(8, 3)

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            return self.head(self.passing(self.body(x), edge_index))

    with pytest.raises(ScoreError, match=r"rows of layer 'body' feed.*own layers are not looked into: end the model"):
        factors(Encoding(), (NODES,), F.cross_entropy, forward=of_all)


def test_weights_of_graph_layers_that_all_leaves_out_are_named() -> None:
    model = Network()
    weights = ", ".join(f"{step}.lin_{side}.weight" for step in ("first", "second") for side in "lr")
    assert left_out(model, [model.head.weight]) == f"{weights} (torch_geometric's own layers)"
