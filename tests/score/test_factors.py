"""Factors of layers at one position a sample, against explicit gradients of each sample alone."""

from __future__ import annotations

import functools
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fgtrac.score.factors import FactorPass
from fgtrac.score.gradients import concatenate
from fgtrac.score.untouched import untouched
from score.models import CNN, MLP, check_explicit, explicit, factors, plain_forward

N = 9
X, Y = torch.randn(N, 6, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 4
SOFT = torch.rand(N, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
LABELS = (SOFT > 0.25).float()
IMAGES = torch.randn(N, 2, 8, 8, generator=torch.Generator().manual_seed(2))
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.25])

LOSSES = [
    (nn.CrossEntropyLoss(), Y),
    (nn.CrossEntropyLoss(weight=WEIGHTS, reduction="sum"), Y),
    (nn.CrossEntropyLoss(label_smoothing=0.2), Y),
    (functools.partial(F.cross_entropy, reduction="mean"), SOFT),
    (nn.BCEWithLogitsLoss(pos_weight=WEIGHTS), LABELS),
    (nn.MSELoss(), SOFT),
    (nn.HuberLoss(reduction="sum"), SOFT),
    (nn.L1Loss(), SOFT),
    (lambda outputs, targets: (outputs.logsumexp(1) - targets.sum(1)) ** 2, SOFT),
]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("case", range(len(LOSSES)))
def test_each_loss_gives_the_explicit_gradients(case):
    loss, targets = LOSSES[case]
    prepared = check_explicit(MLP(), (X, targets), loss, layer="all")
    assert [(layer.name, layer.form, layer.bias) for layer in prepared.layers] == [
        ("first", "factored", True),
        ("head", "factored", True),
    ]


def test_explicit_gradients_by_torch_func_are_the_same():
    model = MLP()
    _, found = factors(model, (X, Y), F.cross_entropy)

    def loss(weights, x, y):
        return F.cross_entropy(torch.func.functional_call(model, weights, x[None]), y[None])

    weights = {name: tensor.detach() for name, tensor in model.named_parameters()}
    model.act.inplace = False  # vmap refuses it
    grads = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, X, Y)
    whole = torch.cat([grads["head.weight"], grads["head.bias"][:, :, None]], dim=2).flatten(1)
    np.testing.assert_allclose(found.gradients[0].whole(), whole.numpy(), rtol=1e-5, atol=1e-7)


def test_the_last_trained_layer_that_is_called_is_taken_by_default():
    model = MLP()
    assert [layer.name for layer in check_explicit(model, (X, Y), F.cross_entropy).layers] == ["head"]
    model.head.requires_grad_(False)
    assert [layer.name for layer in check_explicit(model, (X, Y), F.cross_entropy).layers] == ["first"]


def test_the_order_of_calls_counts_not_that_of_the_modules():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.first, self.unused = nn.Linear(8, 4), nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.first(x).tanh()
            self.unused(hidden)
            return self.head(hidden)

    assert [layer.name for layer in check_explicit(Backwards(), (X, Y), F.cross_entropy).layers] == ["head"]
    called = check_explicit(Backwards(), (X, Y), F.cross_entropy, layer="all").layers
    assert [layer.name for layer in called] == ["first", "head"]


def test_layers_are_named_alone_or_several_in_the_order_given():
    assert check_explicit(MLP(), (X, Y), F.cross_entropy, layer="first").layers[0].name == "first"
    named = check_explicit(MLP(), (X, Y), F.cross_entropy, layer=["head", "first"])
    assert [layer.name for layer in named.layers] == ["head", "first"]
    assert [tuple(weight.shape) for weight in named.weights] == [(4, 8), (8, 6)]


def test_without_a_bias_or_with_a_frozen_one_there_is_no_column_for_it():
    frozen = MLP()
    frozen.head.bias.requires_grad_(False)
    for model in (MLP(bias=False), frozen):
        assert not check_explicit(model, (X, Y), F.cross_entropy).layers[0].bias


def test_a_head_that_is_not_linear_leaves_the_last_linear_layer_before_it():
    class Distances(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = MLP()
            self.centres, self.scale = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.tensor(2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -self.scale * torch.cdist(self.body(x), self.centres)

    assert check_explicit(Distances(), (X, Y), F.cross_entropy).layers[0].name == "body.head"


def test_what_writes_into_a_layers_output_does_no_harm():
    class Writes(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.first(x).mul_(3)
            hidden += 1
            return self.head(input=hidden).mul_(2)

    check_explicit(Writes(), (X, Y), F.cross_entropy, layer="all")


def test_dropout_and_batch_norm_are_those_of_eval_mode():
    prepared = check_explicit(CNN(), (IMAGES, Y % 3), F.cross_entropy)
    assert (prepared.layers[0].name, prepared.layers[0].form) == ("head", "factored")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_batch_size_and_the_order_of_rows_change_nothing(batch_size):
    model = CNN()
    prepared, found = factors(model, (IMAGES, Y % 3), F.cross_entropy, layer="all")
    order = torch.randperm(N)
    with untouched(model):
        passes = [prepared((IMAGES[rows], Y[rows] % 3)) for rows in order.split(batch_size)]
    np.testing.assert_allclose(np.concatenate([part.losses for part in passes]), found.losses[order], rtol=1e-5)
    assert np.concatenate([part.labels for part in passes]).tolist() == (Y[order] % 3).tolist()
    for k, whole in enumerate(found.gradients):
        parts = concatenate([part.gradients[k] for part in passes])
        np.testing.assert_allclose(parts.whole(), whole.whole()[order], rtol=1e-4, atol=1e-6)


def test_losses_and_labels_come_along():
    model = MLP()
    _, found = factors(model, (X, Y), F.cross_entropy)
    np.testing.assert_allclose(found.losses, F.cross_entropy(model(X), Y, reduction="none").detach(), rtol=1e-6)
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == Y.tolist()
    assert factors(model, (X, SOFT), nn.MSELoss())[1].labels is None


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.MSELoss(), nn.L1Loss()])
@pytest.mark.parametrize("layer", ["first", "head"])
def test_hessians_are_second_derivatives_with_respect_to_the_layers_output(loss, layer):
    model, targets = MLP(), SOFT
    model.act = nn.Tanh()
    _, found = factors(model, (X, targets), loss, layer=layer, hessians=True)

    def one(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        behind = output if layer == "head" else model.head(model.act(output))
        return loss(behind[None], target[None])

    outputs = (model.first(X) if layer == "first" else model(X)).detach()
    expected = [
        torch.autograd.functional.hessian(functools.partial(one, target=targets[i]), outputs[i]) for i in range(N)
    ]
    assert found.hessians.dtype == np.float32
    np.testing.assert_allclose(found.hessians, torch.stack(expected).detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-6), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_models_of_other_precision_give_float32_factors(dtype, rtol):
    model = MLP().to(dtype)
    prepared, found = factors(model, (X.to(dtype), Y), F.cross_entropy, layer="all")
    for layer, gradients in zip(prepared.layers, found.gradients, strict=True):
        whole = explicit(model, layer, (X.to(dtype), Y), F.cross_entropy, plain_forward).reshape(N, -1)
        assert gradients.inputs.dtype == gradients.deltas.dtype == np.float32
        np.testing.assert_allclose(gradients.whole(), whole, rtol=rtol, atol=rtol * np.abs(whole).max())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrapped_models_are_scored_under_the_names_of_what_is_inside(wrap):
    model = MLP()
    bare = factors(model, (X, Y), F.cross_entropy)[1]
    prepared, found = factors(wrap(model), (X, Y), F.cross_entropy)
    assert prepared.layers[0].name == "head"
    assert prepared.weights[0] is model.head.weight
    np.testing.assert_array_equal(found.gradients[0].deltas, bare.gradients[0].deltas)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_a_distributed_model_is_scored_as_the_one_inside(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = MLP()
        prepared, _ = factors(nn.parallel.DistributedDataParallel(model), (X, Y), F.cross_entropy)
        assert prepared.layers[0].name == "head"
        assert prepared.weights[0] is model.head.weight
    finally:
        torch.distributed.destroy_process_group()


def test_a_compiled_part_of_a_model_is_scored_uncompiled():
    model = nn.Sequential(torch.compile(MLP(), backend="eager"))
    with torch.no_grad():
        model(X)
    assert check_explicit(model, (X, Y), F.cross_entropy).layers[0].name.endswith("head")


def test_a_pass_runs_under_any_gradient_mode_of_its_caller():
    expected = factors(model := MLP(), (X, Y), F.cross_entropy)[1].gradients[0].deltas
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            np.testing.assert_array_equal(factors(model, (X, Y), F.cross_entropy)[1].gradients[0].deltas, expected)


def test_only_what_lies_behind_the_layer_builds_a_graph():
    model, modes = CNN(), []
    model.norm.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    prepared, _ = factors(model, (IMAGES, Y % 3), F.cross_entropy)
    modes.clear()
    with untouched(model):
        prepared((IMAGES, Y % 3))
    assert modes == [False]


def test_a_pass_costs_no_more_than_a_few_forward_passes():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(400, 400), nn.ReLU()) for _ in range(8)), nn.Linear(400, 10))
    batch = torch.randn(500, 400), torch.arange(500) % 10
    with untouched(model), torch.no_grad():
        prepared = FactorPass.prepare(model, batch, loss=F.cross_entropy)

        def fastest(run) -> float:
            times = []
            for _ in range(5):
                start = time.process_time()
                run()
                times.append(time.process_time() - start)
            return min(times)

        assert fastest(lambda: prepared(batch)) < 3 * fastest(lambda: F.cross_entropy(model(batch[0]), batch[1]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("layer", [None, "all"])
def test_on_cuda_the_factors_are_those_of_the_cpu(layer):
    model = CNN()
    ours = factors(model, (IMAGES, Y % 3), F.cross_entropy, layer=layer)[1]
    theirs = factors(model.cuda(), (IMAGES, Y % 3), F.cross_entropy, layer=layer)[1]
    for one, other in zip(ours.gradients, theirs.gradients, strict=True):
        np.testing.assert_allclose(one.whole(), other.whole(), rtol=1e-2, atol=1e-3)
