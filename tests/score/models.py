"""Small models for the tests of factor passes, and explicit gradients to hold them against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fgtrac.score.factors import FactorPass, Pass
from fgtrac.score.gradients import Floats, Layer
from fgtrac.score.projection import matrices
from fgtrac.score.untouched import untouched


class MLP(nn.Module):
    """Two linear layers, with a ReLU that writes into the first one's output."""

    def __init__(self, d_in: int = 6, hidden: int = 8, classes: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(d_in, hidden, bias=bias)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(hidden, classes, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.first(x)))


class CNN(nn.Module):
    """Convolutions (strided, dilated, grouped) with BatchNorm and dropout before a linear head; images (n, 2, 8, 8)."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.two = nn.Conv2d(4, 6, 2, dilation=2, groups=2, bias=False)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6 * 4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.one(x)), inplace=True)
        return self.head(self.drop(F.relu(self.two(x))).flatten(1))


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each with its residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        q, k, v = (
            part.view(n, length, self.heads, -1).transpose(1, 2) for part in self.qkv(self.before(x)).chunk(3, dim=-1)
        )
        seen = (q @ k.transpose(-1, -2)) / math.sqrt(width / self.heads)
        seen = seen.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
        x = x + self.out((seen @ v).transpose(1, 2).reshape(n, length, width))
        return x + self.down(F.gelu(self.up(self.between(x))))


class LanguageModel(nn.Module):
    """A small transformer; ids (n, T) to logits (n, T, words). `tied`: the head has the embedding's weight."""

    def __init__(self, words: int = 11, width: int = 8, tied: bool = True, padding: int | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width, padding_idx=padding)
        self.place = nn.Embedding(16, width)
        self.block = Block(width, 2)
        self.drop = nn.Dropout(0.1)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=not tied)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.embed(ids) + self.place(torch.arange(ids.shape[1])))
        return self.head(self.norm(self.block(x)))


class GraphNet(nn.Module):
    """A graph convolution over all nodes, then a head for each node; called with the nodes asked for."""

    def __init__(self, nodes: int = 20, d_in: int = 5, hidden: int = 6, classes: int = 3) -> None:
        super().__init__()
        links = (torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(5)) < 0.2).float()
        links = ((links + links.T) > 0).float() + torch.eye(nodes)
        self.register_buffer("links", links / links.sum(1, keepdim=True))
        self.register_buffer("features", torch.randn(nodes, d_in, generator=torch.Generator().manual_seed(6)))
        self.first = nn.Linear(d_in, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, nodes: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.links @ self.first(self.features)))[nodes]


class Recommender(nn.Module):
    """User and item embeddings, refined over the graph's links and turned by one linear layer; scores of pairs."""

    def __init__(self, users: int = 7, items: int = 9, width: int = 5) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, width), nn.Embedding(items, width)
        self.turn = nn.Linear(width, width)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return (self.turn(self.users(users)) * self.turn(self.items(items))).sum(-1)


def bpr_forward(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """Scores of the item that was taken and of one that was not."""
    users, taken, other = batch
    return (model(users, taken), model(users, other)), None


def bpr(outputs: Any, _targets: Any) -> torch.Tensor:
    """The pairwise loss of Bayesian personalised ranking, (n,)."""
    return -F.logsigmoid(outputs[0] - outputs[1])


def plain_forward(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """Of a pair (inputs, targets)."""
    return model(batch[0]), batch[1]


def next_word(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """Logits (n, T - 1, words) and the ids (n, T - 1) that come next."""
    return model(batch[0][:, :-1]), batch[0][:, 1:]


def explicit(model: nn.Module, layer: Layer, batch: Any, loss: Callable[..., Any], forward: Any) -> Floats:
    """(n, d_out, d_in + bias): each sample's gradient from a forward and backward pass of that sample alone."""
    module = model.get_submodule(layer.name)
    wanted = [module.weight, module.bias] if layer.bias else [module.weight]
    rows = []
    for i in range(len(batch[0])):
        outputs, targets = forward(model, tuple(part[i : i + 1] for part in batch))
        grads = torch.autograd.grad(loss(outputs, targets).sum(), wanted)
        rows.append(torch.cat([grad.to_dense().reshape(layer.d_out, -1) for grad in grads], dim=1))
    return torch.stack(rows).float().numpy()


def factors(model: nn.Module, batch: Any, loss: Callable[..., Any], **options: Any) -> tuple[FactorPass, Pass]:
    """A pass that is prepared and run with one batch."""
    with untouched(model):
        prepared = FactorPass.prepare(model, batch, loss=loss, **options)
        return prepared, prepared(batch)


def check_explicit(
    model: nn.Module,
    batch: Any,
    loss: Callable[..., Any],
    *,
    one: Any = None,
    forward: Any = plain_forward,
    **options: Any,
) -> FactorPass:
    """Each layer's gradients are the explicit ones, of `one` (outputs, targets) for a batch of one sample (by default
    `loss` itself), through the projection where the layer has one."""
    prepared, found = factors(model, batch, loss, forward=forward, **options)
    for layer, gradients in zip(prepared.layers, found.gradients, strict=True):
        with untouched(model):
            whole = explicit(model, layer, batch, one or loss, forward)
        assert np.abs(whole).max() > 1e-4, "nothing to compare"
        if layer.form == "projected":
            p_out, p_in = matrices(layer)
            whole = p_out @ whole @ p_in.T
        close = gradients.whole().reshape(whole.shape)
        assert close.dtype == np.float32
        np.testing.assert_allclose(close, whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())
    return prepared
