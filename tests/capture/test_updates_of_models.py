"""The matrix of updates, models: however they are wrapped, copied, frozen or compiled, the log says what the batches
say."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, update_bn

from fgtrac.api.run import Run
from update_truth import Loop, check

Read = Callable[[Path], Any]


@pytest.fixture
def loop(run: Run) -> Loop:
    return Loop(run)


class Counting:
    """A backend of torch.compile that runs what it is given as it is, and counts what it is asked to compile."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


class Written(nn.Module):
    """A network whose forward pass is code of its own, as compilers want it."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(features * 1)
        return out


def compiled(model: nn.Module, how: str, **options: Any) -> Any:
    if how == "wrapped":
        return torch.compile(model, **options)
    if how == "function":
        return torch.compile(lambda features: model(features), **options)
    model.compile(**options)  # type: ignore[no-untyped-call]
    return model


@pytest.mark.matrix("Updates", "torch.compile(model)", attribution="exact")
@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_compiled_model_is_recognised_and_compiled_once(loop: Loop, log: Read, fullgraph: bool, workers: int) -> None:
    torch._dynamo.reset()
    optimizer, backend = loop.sgd(), Counting()
    model = compiled(Written(loop.model), "wrapped", backend=backend, fullgraph=fullgraph)
    for features in loop.batches(workers):
        optimizer.zero_grad()
        model(loop.saw(features)).sum().backward()
        optimizer.step()
        loop.updated()
    check(loop, log, "exact")
    assert backend.graphs == 1


@pytest.mark.matrix(
    "Updates", "model.compile(), and a compiled function that calls a model", attribution="sole",
    note="by order; compiled a second time after the first update",
)  # fmt: skip
@pytest.mark.parametrize("how", ["in place", "function"])
@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_model_that_is_called_inside_compiled_code_is_attributed_in_order(
    loop: Loop, log: Read, how: str, fullgraph: bool
) -> None:
    torch._dynamo.reset()
    optimizer, backend = loop.sgd(), Counting()
    model = compiled(Written(loop.model), how, backend=backend, fullgraph=fullgraph)
    for features in loop.batches():
        optimizer.zero_grad()
        model(loop.saw(features)).sum().backward()
        optimizer.step()
        loop.updated()
    check(loop, log, "sole")
    assert backend.graphs <= 2


@pytest.mark.matrix("Updates", "layers frozen on the way, under accumulation", attribution="exact")
@pytest.mark.parametrize("layers", [[0], [2], [0, 2]])
def test_layers_that_are_frozen_on_the_way_hide_no_batch(loop: Loop, log: Read, layers: list[int]) -> None:
    loop.model.insert(1, nn.Linear(5, 5))
    layers = [layer if layer == 0 else 3 for layer in layers]
    optimizer = loop.sgd()
    for epoch in range(3):
        for number, features in enumerate(loop.batches()):
            loop.model(loop.saw(features)).sum().backward()
            if number % 2:
                optimizer.step()
                optimizer.zero_grad()
                loop.updated()
        for layer in layers:
            loop.model[layer].requires_grad_(epoch == 1)  # and thawed again
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "a backbone without gradients", attribution="exact")
def test_a_head_on_a_frozen_backbone_is_trained_on_its_batches(loop: Loop, log: Read) -> None:
    loop.model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in loop.model.parameters() if p.requires_grad], lr=0.1)
    for features in loop.batches():
        optimizer.zero_grad()
        loop.model(loop.saw(features)).sum().backward()
        optimizer.step()
        loop.updated()
    check(loop, log, "exact")


class Routed(nn.Module):
    """Every other batch goes round the first layer."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.body, self.head = layers[0], layers[2]

    def forward(self, features: torch.Tensor, is_short: bool) -> torch.Tensor:
        out: torch.Tensor = self.head(features.repeat(1, 2)[:, :5] if is_short else self.body(features))
        return out


@pytest.mark.matrix("Updates", "batches that go round some layers, under accumulation", attribution="exact")
def test_a_batch_that_goes_round_a_layer_is_accumulated_like_the_others(loop: Loop, log: Read) -> None:
    model = Routed(loop.model)
    optimizer = loop.sgd(model)
    for number, features in enumerate(loop.batches()):
        model(loop.saw(features), number % 2 == 1).sum().backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
            loop.updated()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "averaged weights (EMA, SWA)", attribution="exact")
def test_averaged_weights_are_no_updates_and_their_statistics_no_uses(loop: Loop, log: Read) -> None:
    loop.model.insert(1, nn.BatchNorm1d(5))
    optimizer, averaged = loop.sgd(), AveragedModel(loop.model)
    for features in loop.batches():
        optimizer.zero_grad()
        loop.model(loop.saw(features)).sum().backward()
        optimizer.step()
        averaged.update_parameters(loop.model)
        loop.updated()
    update_bn(loop.batches(), averaged)
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "autocast", attribution="exact")
def test_a_batch_under_autocast_is_recognised(loop: Loop, log: Read) -> None:
    optimizer = loop.sgd()
    for features in loop.batches():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loop.model(loop.saw(features)).sum()
        loss.backward()
        optimizer.step()
        loop.updated()
    check(loop, log, "exact")


class Replicated(nn.Module):
    """Copies of a module for every pass, each on its part of the batch, as DataParallel makes them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        copies = [{name: weight * 1 for name, weight in self.module.named_parameters()} for _ in range(2)]
        parts = zip(copies, features.chunk(2), strict=True)
        return torch.cat([torch.func.functional_call(self.module, *part) for part in parts])


@pytest.mark.matrix("Updates", "a module that copies itself for each pass (DataParallel)", attribution="exact")
def test_a_module_that_copies_itself_is_recognised_as_a_whole(loop: Loop, log: Read) -> None:
    optimizer, model = loop.sgd(), Replicated(loop.model)
    for features in loop.batches():
        optimizer.zero_grad()
        model(loop.saw(features)).sum().backward()
        optimizer.step()
        loop.updated()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "DistributedDataParallel, no_sync accumulation, one process", attribution="exact")
def test_accumulation_without_synchronisation_counts_every_batch(loop: Loop, log: Read, tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        optimizer, model = loop.sgd(), DistributedDataParallel(loop.model)
        for number, features in enumerate(loop.batches()):
            if number % 2:
                model(loop.saw(features)).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                loop.updated()
            else:
                with model.no_sync():
                    model(loop.saw(features)).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "backward(create_graph=True)", attribution="exact")
@pytest.mark.parametrize("every", [1, 2])
def test_gradients_with_a_graph_of_their_own_accumulate(loop: Loop, log: Read, every: int) -> None:
    optimizer = loop.sgd()
    for number, features in enumerate(loop.batches()):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using backward")  # torch's, of a cycle that zero_grad() breaks
            loop.model(loop.saw(features)).square().sum().backward(create_graph=True)
        if every == 1:
            torch.stack([p.grad.square().sum() for p in loop.model.parameters() if p.grad is not None]).sum().backward()
        if number % every == every - 1:
            optimizer.step()
            optimizer.zero_grad()
            loop.updated()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "gradient penalty (autograd.grad inside the loss)", attribution="exact")
def test_a_gradient_inside_the_loss_is_no_pass_of_its_own(loop: Loop, log: Read) -> None:
    optimizer = loop.sgd()
    for features in loop.batches():
        out = loop.model(loop.saw(features).requires_grad_()).sum()
        (gradient,) = torch.autograd.grad(out, features, create_graph=True)
        optimizer.zero_grad()
        (out + gradient.square().sum()).backward()
        optimizer.step()
        loop.updated()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "several backward passes of one forward pass (retain_graph)", attribution="exact")
def test_losses_that_are_taken_one_after_the_other_are_one_use(loop: Loop, log: Read) -> None:
    optimizer = loop.sgd()
    for features in loop.batches():
        optimizer.zero_grad()
        out = loop.model(loop.saw(features))
        out[:, 0].sum().backward(retain_graph=True)
        out[:, 1].sum().backward()
        optimizer.step()
        loop.updated()
    check(loop, log, "exact")
