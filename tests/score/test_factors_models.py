"""Models that do something of their own with gradients, precision or calls, against explicit gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from fgtrac.errors import ScoreError
from fgtrac.score.factors import FactorPass
from fgtrac.score.untouched import untouched
from score.models import MLP, GraphNet, check_explicit, explicit, factors, plain_forward

N = 6
X, Y = torch.randn(N, 6, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 4
SEQUENCES = torch.randn(N, 5, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_a_model_may_be_one_layer():
    prepared = check_explicit(nn.Linear(6, 4), (X, Y), F.cross_entropy)
    assert prepared.layers[0].name == ""
    check_explicit(nn.Linear(6, 4), (X, Y), F.cross_entropy, layer=prepared.layers)


class Halves(MLP):
    """A part of the forward pass runs without gradients."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            hidden = self.first(x).relu()
        return self.head(hidden)


def test_a_frozen_front_is_no_obstacle_and_not_scored():
    prepared = check_explicit(Halves(), (X, Y), F.cross_entropy, layer="all")
    assert [layer.name for layer in prepared.layers] == ["head"]
    with pytest.raises(ScoreError, match="does not depend on a call of layer 'first'"):
        factors(Halves(), (X, Y), F.cross_entropy, layer="first")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_layer_behind_a_part_in_any_mode_is_scored(mode):
    class Part(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with mode():
                hidden = self.first(x).relu()
            return self.head(hidden.clone())

    assert check_explicit(Part(), (X, Y), F.cross_entropy, layer="all")._cut


def test_a_forward_pass_that_turns_gradients_on_itself_is_scored():
    class Insists(MLP):
        @torch.enable_grad()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    assert check_explicit(Insists(), (X, Y), F.cross_entropy, layer="all")._cut


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_call_without_gradients_beside_one_with_them_does_not_count(mode):
    class Teacher(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with mode():
                target = self.head(self.first(x + 1).relu())
            return self.head(self.first(x).relu()) - target

    check_explicit(Teacher(), (X, Y), F.cross_entropy, layer="all")


def test_a_model_that_takes_gradients_itself_is_run_in_full():
    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad():
                x = x.clone().requires_grad_()
                energy = self.first(x).tanh().pow(2).sum()
            (force,) = torch.autograd.grad(energy, x)
            return self.head(F.pad(force, (0, 2)))

    class Penalty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front, self.head = nn.Parameter(torch.randn(6)), nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = (x * self.front).tanh()
            (slope,) = torch.autograd.grad(hidden.sum(), self.front, create_graph=True)
            return self.head(hidden) + slope.detach().sum()

    assert check_explicit(Field(), (X, Y), F.cross_entropy).layers[0].name == "head"
    prepared, found = factors(model := Penalty(), (X, Y), F.cross_entropy)
    whole = (F.softmax(model(X), 1) - F.one_hot(Y, 4)).detach().numpy()
    np.testing.assert_allclose(found.gradients[0].deltas, whole, rtol=1e-5, atol=1e-6)
    assert not prepared._cut


@pytest.mark.parametrize("layer", [None, "all"])
def test_recomputed_parts_are_counted_once(layer):
    class Thrifty(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(checkpoint(lambda x: self.first(x).relu(), x, use_reentrant=False).mean(1))

    prepared = check_explicit(Thrifty(), (SEQUENCES, Y), F.cross_entropy, layer=layer)
    assert [layer.name for layer in prepared.layers] == (["head"] if layer is None else ["first", "head"])


def test_a_recurrent_network_before_the_head():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project, self.body, self.head = nn.Linear(6, 5), nn.GRU(5, 7, batch_first=True), nn.Linear(7, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(self.project(x))[0][:, -1])

    forms = [layer.form for layer in check_explicit(Recurrent(), (SEQUENCES, Y), F.cross_entropy, layer="all").layers]
    assert forms == ["dense", "factored"]


def test_mixed_precision_gives_the_gradients_to_that_precision():
    def forward(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(batch[0]).float(), batch[1]

    model = MLP()
    prepared, found = factors(model, (X, Y), F.cross_entropy, forward=forward, layer="all")
    for layer, gradients in zip(prepared.layers, found.gradients, strict=True):
        whole = explicit(model, layer, (X, Y), F.cross_entropy, plain_forward).reshape(N, -1)
        np.testing.assert_allclose(gradients.whole(), whole, atol=0.03 * np.abs(whole).max())


def test_random_numbers_that_a_model_draws_in_eval_mode_do_not_mislead():
    class Noisy(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + torch.randn_like(x))

    assert factors(Noisy(), (X, Y), F.cross_entropy)[0]._cut


def test_large_and_small_losses_find_their_samples():
    nodes = torch.arange(N)
    for scale in (1e-20, 1e20):
        model = GraphNet()
        loss = lambda outputs, targets, scale=scale: scale * F.cross_entropy(outputs, targets, reduction="none")  # noqa: E731
        _, found = factors(model, (nodes, nodes % 3), loss, layer="head")
        _, plain = factors(model, (nodes, nodes % 3), F.cross_entropy, layer="head")
        ours = found.gradients[0].whole() / np.float32(scale)
        np.testing.assert_allclose(ours, plain.gradients[0].whole(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n", [2, 63, 64, 65, 700])
def test_every_sample_of_a_batch_of_any_size_is_told_from_the_others(n):
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)
            self.register_buffer("order", torch.randperm(3 * n))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = self.layer(x.flatten(0, 1)[self.order]).tanh()
            return rows[self.order.argsort()].view(n, 3, 4).sum(1)

    model, batch = Shuffled(), (torch.randn(n, 3, 6), torch.arange(n) % 4)
    with untouched(model):
        found = FactorPass.prepare(model, batch, loss=F.cross_entropy)(batch).gradients[0].whole()
        hidden = model.layer(batch[0]).tanh()
        deltas = F.softmax(hidden.sum(1), 1) - F.one_hot(batch[1], 4)
        deltas = deltas[:, None] * (1 - hidden**2)
    whole = torch.einsum("nta,ntb->nab", deltas, F.pad(batch[0], (0, 1), value=1)).flatten(1)
    np.testing.assert_allclose(found, whole.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_second_derivatives_at_nodes_of_a_graph():
    model, nodes = GraphNet(hidden=90, classes=50), torch.tensor([3, 17, 0, 8])
    _, found = factors(model, (nodes, nodes), F.cross_entropy, layer="head", hessians=True)
    p = F.softmax(model(nodes), 1).detach()
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    np.testing.assert_allclose(found.hessians, expected.numpy(), rtol=1e-4, atol=1e-7)
