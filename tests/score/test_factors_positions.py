"""Gradients of layers that see a sample at several positions: whole where small, otherwise projected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fgtrac.score import exactness
from fgtrac.score.factors import FactorPass
from fgtrac.score.gradients import concatenate
from fgtrac.score.projection import matrices
from fgtrac.score.untouched import untouched
from score.models import (
    CNN,
    MLP,
    GraphNet,
    LanguageModel,
    Recommender,
    bpr,
    bpr_forward,
    check_explicit,
    explicit,
    factors,
    next_word,
    plain_forward,
)

N = 6
WORDS = torch.randint(0, 11, (N, 8), generator=torch.Generator().manual_seed(0))
SEQUENCES = torch.randn(N, 5, 6, generator=torch.Generator().manual_seed(1)), torch.arange(N) % 4


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


CONVOLUTIONS = [
    nn.Conv1d(2, 3, 3),
    nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2),
    nn.Conv1d(2, 3, 4, padding="same", dilation=2),
    nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(0, 2), dilation=(2, 1), bias=False),
    nn.Conv2d(4, 8, 3, groups=4, padding=1),
    nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
    nn.Conv3d(2, 3, 2, stride=2, padding=1, padding_mode="replicate"),
    nn.Conv2d(16, 32, 5, groups=2, padding=2),
    nn.Conv2d(8, 64, 3),
]


@pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=repr)
def test_each_kind_of_convolution_gives_the_explicit_gradients(convolution):
    convolution.reset_parameters()
    model = Convolved(convolution)
    sizes = [7, 6, 5][: convolution.weight.ndim - 2]
    images = torch.randn(N, convolution.in_channels, *sizes)
    layer = check_explicit(model, (images, torch.arange(N) % 3), F.cross_entropy).layers[0]
    assert layer.form == ("dense" if layer.d_out * (layer.d_in + layer.bias) <= 4096 else "projected")


class Convolved(nn.Module):
    """A convolution's outputs squared and averaged over the image, then mixed into three classes."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution
        self.register_buffer("classes", torch.randn(convolution.out_channels, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x).pow(2).flatten(2).mean(2) @ self.classes


def test_a_convolution_that_sees_each_image_at_one_position_is_factored():
    model = nn.Sequential(nn.Conv2d(2, 5, 8), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(5, 3))
    batch = torch.randn(N, 2, 8, 8), torch.arange(N) % 3
    assert check_explicit(model, batch, F.cross_entropy, layer="0").layers[0].form == "factored"


def test_all_layers_of_a_network_with_strides_dilation_and_groups():
    batch = torch.randn(N, 2, 8, 8), torch.arange(N) % 3
    forms = [layer.form for layer in check_explicit(CNN(), batch, F.cross_entropy, layer="all").layers]
    assert forms == ["dense", "dense", "factored"]


class Samples(nn.Module):
    """A layer over sequences (n, T, 6), laid out in different ways."""

    def __init__(self, layout: str, hidden: int = 7) -> None:
        super().__init__()
        self.layout, self.layer, self.head = layout, nn.Linear(6, hidden), nn.Linear(hidden, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        if self.layout == "time first":
            hidden = self.layer(x.transpose(0, 1)).relu_().mean(0)
        elif self.layout == "flattened":
            hidden = self.layer(x.reshape(-1, width)).relu_().view(n, length, -1).mean(1)
        elif self.layout == "flattened, time first":
            hidden = self.layer(x.transpose(0, 1).reshape(-1, width)).relu_().view(length, n, -1).mean(0)
        elif self.layout == "several calls":
            hidden = sum(self.layer(x[:, k]).relu() for k in range(length))
        elif self.layout == "four dimensions":
            hidden = self.layer(x.view(n, 1, length, width)).relu_().mean((1, 2))
        elif self.layout == "backwards":
            hidden = self.layer(x.reshape(-1, width).flip(0)).relu_().flip(0).view(n, length, -1).mean(1)
        else:
            hidden = self.layer(x).relu_().mean(1)
        return self.head(hidden)


LAYOUTS = ["", "time first", "flattened", "flattened, time first", "several calls", "four dimensions", "backwards"]


@pytest.mark.parametrize("hidden", [7, 700])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_find_their_samples_however_they_are_laid_out(layout, hidden):
    layers = check_explicit(Samples(layout, hidden), SEQUENCES, F.cross_entropy, layer="layer").layers
    assert layers[0].form == ("dense" if hidden == 7 else "projected")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_size_of_the_batch_changes_nothing_in_any_layout(layout):
    model = Samples(layout)
    prepared, found = factors(model, SEQUENCES, F.cross_entropy, layer="layer")
    with untouched(model):
        parts = [
            prepared((x, y)).gradients[0] for x, y in zip(SEQUENCES[0].split(4), SEQUENCES[1].split(4), strict=True)
        ]
        alone = FactorPass.prepare(model, (SEQUENCES[0][:1], SEQUENCES[1][:1]), loss=F.cross_entropy, layer="layer")
        ones = [alone((SEQUENCES[0][i : i + 1], SEQUENCES[1][i : i + 1])).gradients[0] for i in range(N)]
    for other in (concatenate(parts), concatenate(ones)):
        np.testing.assert_allclose(other.whole(), found.gradients[0].whole(), rtol=1e-4, atol=1e-7)


def test_samples_of_different_lengths_in_one_long_row_of_words():
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(6, 7), nn.Linear(7, 4)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            hidden = self.layer(torch.cat([row[:length] for row, length in zip(x, lengths, strict=True)])).relu()
            return self.head(torch.stack([part.sum(0) for part in hidden.split(lengths.tolist())]))

    batch = (*SEQUENCES, torch.tensor([5, 1, 3, 2, 2, 5]))
    forward = lambda model, batch: (model(batch[0], batch[2]), batch[1])  # noqa: E731
    check_explicit(Packed(), batch, F.cross_entropy, forward=forward, layer="all")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layer", [None, "all"])
def test_a_language_model_gives_the_explicit_gradients(tied, layer):
    prepared = check_explicit(LanguageModel(tied=tied), (WORDS,), language_loss, forward=next_word, layer=layer)
    names = [layer.name for layer in prepared.layers]
    assert names == (["head"] if layer is None else ["block.qkv", "block.out", "block.up", "block.down", "head"])
    assert {layer.form for layer in prepared.layers} == {"dense"}


def language_loss(logits: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.movedim(-1, 1), words, reduction="none").mean(1)


@pytest.mark.parametrize("whole", [1 << 24, 30_000], ids=["from whole gradients", "position by position"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_of_many_words_is_projected_and_says_how_well(tied, whole, monkeypatch):
    monkeypatch.setattr(exactness, "_WHOLE", whole)
    words = torch.randint(0, 150, (N, 8))
    words[:, [1, 5, 6, 7]] = 3  # padding, which the loss does not count and whose row is not trained
    model = LanguageModel(words=150, width=40, tied=tied, padding=3)
    loss = nn.CrossEntropyLoss(ignore_index=3)
    one = lambda logits, words: F.cross_entropy(logits.movedim(-1, 1), words, ignore_index=3)  # noqa: E731
    layer = check_explicit(model, (words,), loss, one=one, forward=next_word).layers[0]
    assert (layer.form, layer.k_in, layer.k_out) == ("projected", 32, 32)
    with untouched(model):
        whole = explicit(model, layer, (words,), one, next_word).reshape(N, -1)
    p_out, p_in = matrices(layer)
    close = (p_out @ whole.reshape(N, 150, -1) @ p_in.T).reshape(N, -1)
    other = ~np.eye(N, dtype=bool)
    wrong, right = (close @ close.T - whole @ whole.T)[other], (whole @ whole.T)[other]
    np.testing.assert_allclose(layer.error, np.linalg.norm(wrong) / np.linalg.norm(right), rtol=1e-3)


def test_two_linear_layers_of_one_weight_are_one_layer():
    class Twice(MLP):
        def __init__(self) -> None:
            super().__init__(8, 8, 8)
            self.head.weight = self.first.weight

    model, batch = Twice(), (torch.randn(N, 8), torch.arange(N) % 8)
    prepared = check_explicit(model, batch, F.cross_entropy, layer="all")
    assert [(layer.name, layer.form) for layer in prepared.layers] == [("first", "dense")]
    assert [layer.name for layer in check_explicit(model, batch, F.cross_entropy).layers] == ["head"]


def test_nodes_of_a_graph_are_samples_though_the_layer_sees_all_nodes():
    nodes = torch.tensor([3, 17, 0, 8, 9, 1])
    for model, form in ((GraphNet(), "dense"), (GraphNet(hidden=90, classes=50), "factored")):
        prepared = check_explicit(model, (nodes, torch.arange(N) % 3), F.cross_entropy, layer="head")
        assert prepared.layers[0].form == form


def test_nodes_asked_for_in_other_batches_are_found_again():
    model, nodes = GraphNet(hidden=90, classes=50), torch.arange(20)
    with untouched(model):
        prepared = FactorPass.prepare(model, (nodes, nodes), loss=F.cross_entropy, layer="head")
        some = torch.tensor([19, 2, 5])
        gradients = prepared((some, some)).gradients[0]
        whole = explicit(model, prepared.layers[0], (some, some), F.cross_entropy, plain_forward)
    np.testing.assert_allclose(gradients.whole(), whole.reshape(3, -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [5, 70])
def test_pairwise_losses_call_the_layer_several_times_a_sample(width):
    batch = tuple(torch.randint(0, 7, (N,), generator=torch.Generator().manual_seed(k)) for k in range(3))
    check_explicit(Recommender(width=width), batch, bpr, forward=bpr_forward)


def test_pairs_laid_one_behind_the_other_are_one_sample_each():
    def forward(model: nn.Module, batch: Any) -> tuple[Any, Any]:
        left, right = model(torch.cat([batch[0], batch[1]])).chunk(2)
        return (left - right).pow(2).sum(1), batch[2]

    batch = torch.randn(N, 6), torch.randn(N, 6), torch.randn(N)
    hinge = lambda distance, target: F.softplus(1 - target * distance)  # noqa: E731
    check_explicit(MLP(), batch, hinge, forward=forward, layer="all")


def test_torchs_own_encoder_is_seen_though_it_has_a_fused_path():
    encoder = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(encoder, 2), nn.Flatten(), nn.Linear(30, 4))
    prepared = check_explicit(model, SEQUENCES, F.cross_entropy, layer="all")
    assert [layer.name for layer in prepared.layers] == [
        *(f"0.layers.{k}.linear{j}" for k in (0, 1) for j in (1, 2)),
        "2",
    ]
    assert torch.backends.mha.get_fastpath_enabled()


def test_torchs_own_encoder_is_seen_though_it_would_nest_padded_sequences():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), 2)
    model = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(6, 4)})
    padded = torch.arange(5)[None] >= torch.tensor([5, 4, 2, 3, 5, 1])[:, None]

    def forward(model: nn.Module, batch: Any) -> tuple[Any, Any]:
        return model.head(model.encoder(batch[0], src_key_padding_mask=batch[2])[:, 0]), batch[1]

    check_explicit(model, (*SEQUENCES, padded), F.cross_entropy, forward=forward, layer="all")


def test_a_sample_that_does_not_reach_the_layer_has_a_gradient_of_zero():
    class Sometimes(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x[:, :8]) if (x > 0).any() else x[:, :4] * self.head.bias[0]

    model, batch = Sometimes(8), (torch.randn(N, 8), torch.arange(N) % 4)
    with untouched(model):
        model.head.bias.requires_grad_(False)
        prepared = FactorPass.prepare(model, batch, loss=F.cross_entropy)
        assert not prepared((-batch[0].abs(), batch[1])).gradients[0].whole().any()


def test_one_unseen_sample_is_written_down_as_the_trace_has_its_layers():
    words = torch.randint(0, 150, (N, 8))
    model, loss = LanguageModel(words=150, width=40), nn.CrossEntropyLoss()
    graph, nodes = GraphNet(hidden=90, classes=50), torch.arange(N)
    for one, batch, options in (
        (model, (words,), {"loss": loss, "forward": next_word}),
        (graph, (nodes, nodes), {"loss": F.cross_entropy, "layer": "head"}),
        (MLP(8), (torch.randn(N, 8), nodes % 4), {"loss": F.cross_entropy, "layer": "all"}),
    ):
        prepared, found = factors(one, batch, **options)
        with untouched(one):
            last = tuple(part[-1:] for part in batch)
            again = FactorPass.prepare(one, last, **options | {"layer": prepared.layers, "seed": 5})
            assert again.layers == prepared.layers
            for ours, theirs in zip(again(last).gradients, found.gradients, strict=True):
                np.testing.assert_allclose(ours.whole(), theirs.whole()[-1:], rtol=1e-4, atol=1e-6)
