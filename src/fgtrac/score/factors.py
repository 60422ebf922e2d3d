"""The factor pass: the gradients of some layers, of each sample of a batch, at the model's present state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fgtrac.errors import ScoreError
from fgtrac.score.calls import Call, Forward, default_forward, gradients_at, recording, unwrapped
from fgtrac.score.gradients import Floats, Gradients, Layer
from fgtrac.score.layers import Choice, Scored, candidates, choose, weight_of
from fgtrac.score.losses import PerSample, per_sample
from fgtrac.score.untouched import refuse_lazy


class NotFinite(ScoreError):
    """NaN or infinity in a loss or a gradient. `count`: in how many rows of the batch; `row`: the first of them."""

    def __init__(self, what: str, count: int, row: int) -> None:
        super().__init__(f"NaN or infinity in the {what} of {count} samples of this batch, first in row {row}")
        self.count, self.row = count, row


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What one batch of n samples gave: a Gradients for each layer; `losses` (n,) float32; `labels` (n,) int64 where
    the targets are one whole number a sample; `hessians` (n, d_out, d_out) float32 where asked for."""

    gradients: tuple[Gradients, ...]
    losses: Floats
    labels: NDArray[np.int64] | None
    hessians: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class FactorPass:
    """Made by `prepare`, then called with batches while the model is in eval mode (`untouched`).

    `layers` says how the gradients are written down; `weights` are the layers' weights, in the same order.
    """

    layers: tuple[Layer, ...]
    weights: tuple[nn.Parameter, ...]
    model: nn.Module
    forward: Forward
    loss: PerSample
    hessians: bool

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        batch: Any,
        *,
        loss: Callable[..., Any],
        forward: Forward | None = None,
        layer: Choice = None,
        seed: int = 0,
        hessians: bool = False,
    ) -> FactorPass:
        """Runs one batch to see what the model does."""
        model = unwrapped(model)
        refuse_lazy(model)
        forward, terms = forward or default_forward, per_sample(loss)
        found = candidates(model)
        names: dict[nn.Module, str] = {module: name for name, module in found.items()}
        with recording(list(found.values()), cut=False) as recorder:
            outputs, targets = forward(model, batch)
            losses = terms(outputs, targets)
        grads = gradients_at(losses, recorder.calls, torch.ones_like(losses))
        called = [names[call.module] for call, grad in zip(recorder.calls, grads, strict=True) if grad is not None]
        chosen = [found[name] for name in choose(model, layer, called)]
        layers = tuple(_describe(names[module], module) for module in chosen)
        return cls(layers, tuple(weight_of(module) for module in chosen), model, forward, terms, hessians)

    def __call__(self, batch: Any) -> Pass:
        """The gradients of each sample of a batch."""
        modules = [self.model.get_submodule(layer.name) for layer in self.layers]
        with recording(list(modules), cut=True) as recorder:
            outputs, targets = self.forward(self.model, batch)
            torch.set_grad_enabled(True)
            losses = self.loss(outputs, targets)
        grads = gradients_at(losses, recorder.calls, torch.ones_like(losses))
        _check_finite("loss", losses)
        gradients = []
        for layer, module in zip(self.layers, modules, strict=True):
            (found,) = [(c, g) for c, g in zip(recorder.calls, grads, strict=True) if c.module is module]
            gradients.append(_factored(layer, *found, n=len(losses)))
        return Pass(tuple(gradients), _floats(losses), _labels(targets, len(losses)), None)


def _describe(name: str, module: Scored) -> Layer:
    bias = module.bias is not None and module.bias.requires_grad
    return Layer(name, "factored", module.weight[0].numel(), len(module.weight), bias)


def _factored(layer: Layer, call: Call, grad: torch.Tensor | None, n: int) -> Gradients:
    if grad is None or call.output.shape != (n, layer.d_out):
        raise ScoreError(f"layer {layer.name!r} sees several positions a sample, which is not done yet")
    _check_finite("inputs", call.inputs)
    _check_finite("deltas", grad)
    return Gradients(layer, inputs=_floats(call.inputs), deltas=_floats(grad))


def _check_finite(what: str, rows: torch.Tensor) -> None:
    if not torch.isfinite(rows).all():
        bad = (~torch.isfinite(rows)).flatten(1).any(1) if rows.ndim > 1 else ~torch.isfinite(rows)
        raise NotFinite(what, int(bad.sum()), int(bad.nonzero()[0]))


def _labels(targets: Any, n: int) -> NDArray[np.int64] | None:
    if not isinstance(targets, torch.Tensor) or targets.shape != (n,):
        return None
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        return None
    return targets.detach().cpu().numpy().astype(np.int64)


def _floats(tensor: torch.Tensor) -> Floats:
    return tensor.detach().float().cpu().numpy()
