"""What passes through some layers in one forward pass, and the loss's gradient with respect to their outputs.

For one pass over the last layer this costs little more than the plain forward pass: it runs without gradients up to
the first of the layers, whose output becomes a leaf; only what lies behind it builds a graph.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

Forward = Callable[[nn.Module, Any], tuple[Any, Any]]


@dataclass(slots=True)
class Call:
    """One call of a module: what it got, without history, what shape it returned, and where the gradient with respect
    to that arrives (None where gradients were off)."""

    name: str
    module: nn.Module
    inputs: torch.Tensor
    shape: tuple[int, ...]
    edge: GradientEdge | None


@dataclass(slots=True)
class Recorder:
    """Forward hooks of some modules. `cut`: gradients begin at the first of their outputs."""

    names: Mapping[nn.Module, str]
    cut: bool
    calls: list[Call] = field(default_factory=list)
    is_on: bool = True

    def hook(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: torch.Tensor) -> Any:
        """The output, as a leaf where gradients begin; noted."""
        if not self.is_on:
            return output
        if self.cut and not torch.is_grad_enabled():
            torch.set_grad_enabled(True)
            output = output.detach().requires_grad_()
        if output.requires_grad and (output.is_leaf or output._is_view()):
            output = output.clone()  # what comes next may write into it, and a gradient could not be taken then
        inputs = args[0] if args else kwargs["input"]
        edge = get_gradient_edge(output) if output.requires_grad else None
        self.calls.append(Call(self.names[module], module, inputs.detach(), tuple(output.shape), edge))
        return output


@contextmanager
def recording(model: nn.Module, names: Mapping[nn.Module, str], cut: bool) -> Iterator[Recorder]:
    """Notes the calls of these modules; gradient mode is as before afterwards.

    Compiled parts run uncompiled, and torch's fused transformer layers unfused: both would pass the hooks by.
    """
    recorder = Recorder(names, cut)
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            # cuDNN's recurrent layers take no gradient in eval mode
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(not cut))
        for module in names:
            stack.callback(module.register_forward_hook(recorder.hook, prepend=True, with_kwargs=True).remove)
        yield recorder
        recorder.is_on = False


def gradients_at(losses: torch.Tensor, calls: Sequence[Call], weights: torch.Tensor) -> list[torch.Tensor | None]:
    """d (weights . losses) / d output of each call, None where the losses do not depend on it."""
    edges = [call.edge for call in calls if call.edge is not None]
    if not edges or not losses.requires_grad:
        return [None] * len(calls)
    found = iter(torch.autograd.grad(losses, edges, weights, retain_graph=True, allow_unused=True))
    return [None if call.edge is None else next(found) for call in calls]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile and data-parallel wrappers; its layers have the same names in every wrapping."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def default_forward(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """(outputs, targets) of a batch that is a pair (inputs, targets) of tensors, on the device of the model.
    ValueError for another batch."""
    pair = tuple(batch) if isinstance(batch, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(part, torch.Tensor) for part in pair):
        raise ValueError(
            f"this batch, a {type(batch).__name__}, is no pair (inputs, targets) of tensors; give a function "
            "forward(model, batch) that returns (outputs, targets)"
        )
    inputs, targets = pair
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return model(inputs.to(device)), targets.to(device)
