"""The factor pass: the gradients of some layers, of each sample of a batch, at the model's present state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fgtrac.errors import ScoreError
from fgtrac.score.calls import Call, Forward, default_forward, unwrapped
from fgtrac.score.finite import check_finite
from fgtrac.score.gradients import Floats, Gradients, Layer
from fgtrac.score.layers import Choice, of_graphs
from fgtrac.score.losses import PerSample, per_sample
from fgtrac.score.owners import NOBODY, MixedSamples, Order, Placement, check_orders, in_order, items_of, likely_order
from fgtrac.score.probe import Plan, Run, find_placements, is_cut_right, plan, run, sites_of, used_of
from fgtrac.score.sums import positions_of, sides_of, summed
from fgtrac.score.untouched import own_generators, refuse_unready


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What one batch of n samples gave: a Gradients for each layer; `losses` (n,) float32; `labels` (n,) int64 where
    the targets are one whole number a sample; `hessians` (n, d_out, d_out) float32 where asked for: the second
    derivative of each loss with respect to the layer's output."""

    gradients: tuple[Gradients, ...]
    losses: Floats
    labels: NDArray[np.int64] | None
    hessians: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class FactorPass:
    """Made by `prepare` from a first batch, then called with batches, both inside `untouched(model)`.

    `layers` says how the gradients are written down; `weights` are the layers' weights in the same order. No `.grad`
    and no `requires_grad` is changed. Which row of a layer's output belongs to which sample follows from backward
    passes: of each batch, and of the first one whether the output's shape says it, which later ones are held against.
    """

    layers: tuple[Layer, ...]
    weights: tuple[nn.Parameter, ...]
    _model: nn.Module
    _forward: Forward
    _loss: PerSample
    _plans: tuple[Plan, ...]
    _cut: bool
    _hessians: bool

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        batch: Any,
        *,
        loss: Callable[..., Any],
        forward: Forward | None = None,
        layer: Choice | Sequence[Layer] = None,
        seed: int = 0,
        hessians: bool = False,
    ) -> FactorPass:
        """Runs one batch, of two samples or more where there are any, and checks all that later passes rely on.

        `forward(model, batch)` returns (outputs, targets), by default of a batch (inputs, targets); `loss` see
        `per_sample`. `layer`: None is the last trained linear or convolution layer that the forward pass calls, "all"
        each of them, otherwise a name or several, or layers as a trace has them: then in their form. `seed` is for the
        projections of large layers.

        Raises ValueError for a name that does not exist, ScoreError (the caller's fault both) for what cannot be
        scored: samples that are mixed, a frozen layer, a weight that acts otherwise than in its layer, NaN.
        """
        model, forward, terms = unwrapped(model), forward or default_forward, per_sample(loss)
        refuse_unready(model)
        _refuse_training(model)
        known = [of for of in layer or () if isinstance(of, Layer)]
        choice = [of.name for of in known] or cast(Choice, layer)
        with own_generators():
            sites, seen = sites_of(model, choice, batch, forward, terms)
        try:
            plans = tuple(plan(site, seen, seed, like) for site, like in zip_longest(sites, known))
        except MixedSamples as error:
            if layer is None and (words := of_graphs(model)):
                raise ScoreError(f"{error}; {words}") from error
            raise
        if hessians and (len(plans) > 1 or plans[0].layer.form != "factored"):
            raise ScoreError(
                "ggn (hessians) is of one layer that sees each sample at one position; name one, or leave ggn out"
            )
        with own_generators():  # the same random numbers again, where the model draws any
            cut = is_cut_right(model, batch, forward, terms, sites, seen)
        layers = tuple(of.layer for of in plans)
        return cls(layers, tuple(site.weight for site in sites), model, forward, terms, plans, cut, hessians)

    def __call__(self, batch: Any) -> Pass:
        """The gradients of each sample of a batch. ScoreError for NaN or infinity (`NotFinite`), and where a layer is
        used otherwise than in the first batch."""
        _refuse_training(self._model)
        seen = run(self._model, batch, self._forward, self._loss, _holders(self._plans), self._cut)
        check_finite("loss", seen.losses)
        _check_orders(self._plans, seen)
        gradients = tuple(_written(of, seen) for of in self._plans)
        second = _hessians(self._plans[0], seen) if self._hessians else None
        return Pass(gradients, _floats(seen.losses), _labels(seen.targets, len(seen.losses)), second)


def _refuse_training(model: nn.Module) -> None:
    if any(module.training for module in model.modules()):
        raise ScoreError("the model is in training mode, where samples mix; run the pass inside untouched(model)")


def _holders(plans: Sequence[Plan]) -> dict[nn.Module, str]:
    return {module: name for of in plans for module, name in of.site.holders.items()}


def _order(of: Plan, seen: Run, used: list[tuple[Call, torch.Tensor]]) -> Order | None:
    """What the shapes of a layer's outputs say about samples, where they are as in the first batch."""
    n = len(seen.losses)
    return of.order if all(likely_order(call, n) == of.order for call, _ in used) else None


def _check_orders(plans: Sequence[Plan], seen: Run) -> None:
    """That the first batch did not mix samples does not say that this one does not: its own gradients do."""
    each = [(used, _order(of, seen, used)) for of in plans if (used := used_of(of.site, seen))]
    ordered = [(call, grad, order) for used, order in each if order is not None for call, grad in used]
    if ordered:
        check_orders(seen.losses, *zip(*ordered, strict=True))


def _placements(of: Plan, seen: Run, used: list[tuple[Call, torch.Tensor]]) -> list[Placement]:
    """By the shape where the first batch has shown it to be right, otherwise by backward passes."""
    order, n = _order(of, seen, used), len(seen.losses)
    if order is None:
        return find_placements(seen, used)
    return [in_order(order, len(items_of(call, grad)), n, grad.device) for call, grad in used]


def _written(of: Plan, seen: Run) -> Gradients:
    """One layer's gradients, in its form."""
    n, layer, used = len(seen.losses), of.layer, used_of(of.site, seen)
    if not used:  # no sample of this batch came by
        return Gradients(
            layer, **{name: np.zeros((n, width), dtype=np.float32) for name, width in _kept(layer).items()}
        )
    placements = _placements(of, seen, used)
    if layer.form == "factored":
        return _factored(of, used, _row_of_each(layer, used, placements))
    whole = summed([sides_of(of.site, call, grad, of.through) for call, grad in used], placements).flatten(1)
    check_finite(f"gradients of layer {layer.name!r}", whole)
    return Gradients(layer, dense=_floats(whole))


def _kept(layer: Layer) -> dict[str, int]:
    return {name.replace("gradients", "dense"): width for name, width in layer.columns.items()}


def _factored(of: Plan, used: list[tuple[Call, torch.Tensor]], row: torch.Tensor | None) -> Gradients:
    """Inputs and deltas of the one row that each sample has."""
    sides = sides_of(replace(of.site, bias=None), *used[0])
    inputs, deltas = _taken(sides.into.flatten(1), row), _taken(sides.out.flatten(1), row)
    check_finite(f"inputs of layer {of.layer.name!r}", inputs)
    check_finite(f"deltas of layer {of.layer.name!r}", deltas)
    return Gradients(of.layer, _floats(inputs), _floats(deltas))


def _row_of_each(layer: Layer, used: list[tuple[Call, torch.Tensor]], placed: list[Placement]) -> torch.Tensor | None:
    """(n,) the item of each sample, or NOBODY; None where item i is of sample i."""
    placement, is_one = placed[0], len(used) == 1 and positions_of(used[0][0]) == 1
    if is_one and placement.order is not None and placement.items == placement.n:
        return None
    rows = (placement.owners != NOBODY).nonzero()[:, 0]
    owners = placement.owners[rows]
    if not is_one or len(torch.unique(owners)) < len(owners):
        raise ScoreError(
            f"layer {layer.name!r} sees a sample at several positions, but at one in the first batch; "
            "prepare the pass with a batch that shows it"
        )
    found = torch.full((placement.n,), NOBODY, device=owners.device)
    found[owners] = rows
    return found


def _taken(side: torch.Tensor, row: torch.Tensor | None) -> torch.Tensor:
    """The side's row of each sample, 0 for one that has none."""
    if row is None:
        return side
    return side[row.clamp(min=0)] * (row != NOBODY).view(-1, *[1] * (side.ndim - 1))


def _hessians(of: Plan, seen: Run) -> Floats:
    """(n, d_out, d_out): by one backward pass through the gradient for each output of the layer."""
    used, size = used_of(of.site, seen), of.layer.d_out
    if not used:
        return np.zeros((len(seen.losses), size, size), dtype=np.float32)
    call = used[0][0]
    assert call.edge is not None
    ones = torch.ones_like(seen.losses)
    (first,) = torch.autograd.grad(seen.losses, [call.edge], ones, create_graph=True)
    deltas = items_of(call, first)
    if not deltas.requires_grad:  # a loss that is linear in the outputs
        return np.zeros((len(seen.losses), size, size), dtype=np.float32)
    rows = [
        torch.autograd.grad(deltas[:, k].sum(), [call.edge], retain_graph=True, materialize_grads=True)[0]
        for k in range(size)
    ]
    second = torch.stack([items_of(call, row) for row in rows], dim=1)
    second = _taken(second, _row_of_each(of.layer, used, _placements(of, seen, used)))
    check_finite(f"hessians of layer {of.layer.name!r}", second)
    return _floats(second)


def _labels(targets: Any, n: int) -> NDArray[np.int64] | None:
    if not isinstance(targets, torch.Tensor) or targets.shape != (n,):
        return None
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        return None
    return targets.detach().cpu().numpy().astype(np.int64)


def _floats(tensor: torch.Tensor) -> Floats:
    return tensor.detach().float().cpu().numpy()
