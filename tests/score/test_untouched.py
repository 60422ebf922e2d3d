"""A pass leaves no trace in the model or in the global generators, whatever happens in it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fgtrac.errors import ScoreError
from fgtrac.score.factors import FactorPass
from fgtrac.score.untouched import untouched
from score.models import CNN, MLP


def state(model: nn.Module) -> dict[str, Any]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "storage": {name: tensor.data_ptr() for name, tensor in tensors.items()},
        "same": {name: id(tensor) for name, tensor in tensors.items()},
        "grads": {name: None if tensor.grad is None else tensor.grad.clone() for name, tensor in tensors.items()},
        "asks": {name: tensor.requires_grad for name, tensor in tensors.items()},
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tobytes(),
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
    }


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name in one:
        if name in ("values", "grads"):
            assert one[name].keys() == other[name].keys()
            for key, tensor in one[name].items():
                assert tensor is None or tensor.equal(other[name][key]), key
        elif name == "torch":
            assert one[name].equal(other[name])
        else:
            assert one[name] == other[name], name


class Restless(nn.Module):
    """Writes its buffers, also in eval mode, and draws from every generator."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("last", torch.zeros(3))
        self.register_buffer("kept", torch.ones(2))
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        self.last = torch.rand(3) * random.random() * float(np.random.rand())
        self.register_buffer("new", torch.ones(1))
        return self.head(x)


def batch(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 6), torch.arange(n) % 4


def images() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(8, 2, 8, 8), torch.arange(8) % 3


@pytest.mark.parametrize(("make", "data"), [(CNN, images()), (Restless, batch()), (MLP, batch())])
def test_a_factor_pass_leaves_the_model_and_the_generators_as_they_were(make, data):
    model = make()
    F.cross_entropy(model(data[0]), data[1]).backward()
    model.get_submodule("head").eval()  # a module with a mode of its own
    before = state(model)
    with untouched(model):
        assert not any(module.training for module in model.modules())
        FactorPass.prepare(model, data, loss=F.cross_entropy, layer="all")(data)
    assert_same(before, state(model))


def test_training_after_a_pass_gives_the_same_weights_as_without_it():
    def train(scored: bool) -> list[torch.Tensor]:
        torch.manual_seed(3)
        model, data = CNN(), images()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(data[0]), data[1]).backward()
            optimizer.step()
            if scored:
                with untouched(model):
                    FactorPass.prepare(model, data, loss=F.cross_entropy)(data)
        return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]

    assert all(one.equal(other) for one, other in zip(train(False), train(True), strict=True))


def test_an_error_inside_puts_everything_back_too():
    model = Restless()
    before = state(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), untouched(model):
        model(torch.ones(2, 5))
    assert_same(before, state(model))


def test_what_did_not_change_is_not_written_to():
    model = Restless()
    version = model.kept._version
    with untouched(model):
        model(batch()[0])
    assert model.kept._version == version
    assert model.seen.tolist() == [0, 0, 0]


def test_an_embedding_that_renormalises_when_it_is_read_keeps_its_weights():
    model = nn.Embedding(4, 3, max_norm=0.1)
    before = model.weight.detach().clone()
    with untouched(model):
        model(torch.arange(4))
        assert not model.weight.equal(before)
    assert model.weight.equal(before)


def test_a_buffer_of_nan_is_no_change():
    model = nn.Module()
    model.register_buffer("unset", torch.full((2,), torch.nan))
    with untouched(model):
        pass
    assert model.unset.isnan().all()


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_a_lazy_module_is_refused_before_its_first_batch():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ScoreError, match=r"0\.weight is not initialised.*run one batch"), untouched(model):
        pass
    assert isinstance(model[0], nn.LazyLinear)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_the_generators_of_every_cuda_device_are_as_before():
    torch.cuda.init()
    before = torch.cuda.get_rng_state_all()
    with untouched(MLP().cuda()):
        torch.rand(3, device="cuda")
    assert all(one.equal(other) for one, other in zip(before, torch.cuda.get_rng_state_all(), strict=True))


class Counts(nn.Module):
    """Puts another tensor in the place of its buffer at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        return x + 0 * self.calls


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_the_buffers_of_a_scripted_part_are_as_before():
    model = nn.Sequential(torch.jit.script(Counts()), nn.Linear(6, 4))
    with untouched(model):
        FactorPass.prepare(model, batch(), loss=F.cross_entropy)(batch())
        assert model[0].calls.item() > 1
    assert model[0].calls.item() == 0
