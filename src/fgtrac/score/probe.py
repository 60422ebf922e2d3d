"""The first batch: which layers to score, how each is written down, and whether that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fgtrac.errors import ScoreError
from fgtrac.score.calls import Call, Forward, gradients_at, recording
from fgtrac.score.exactness import check_weight, projection_error
from fgtrac.score.finite import NotFinite, check_finite
from fgtrac.score.gradients import Layer
from fgtrac.score.layers import Choice, Convolution, Site, choose, recordable, site_of
from fgtrac.score.losses import PerSample, check_parts
from fgtrac.score.owners import NOBODY, Order, Placement, find_owners, in_order, items_of, likely_order, placement_of
from fgtrac.score.projection import matrices, projected_form
from fgtrac.score.sums import Matrices, positions_of

SHOWN = 16  # samples of a first batch that show a layer to see each at one position, though in no regular order
DENSE_LIMIT = 4096  # numbers in a gradient that is kept whole where the layer sees a sample at several positions


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One batch through the model: n samples' losses (n,), with their graph, the targets, and the calls of some
    layers with the gradient of the summed losses at each (None where they do not depend on it)."""

    losses: torch.Tensor
    targets: Any
    calls: list[Call]
    grads: list[torch.Tensor | None]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How one layer is written down. `order`: what the shape of its output says about samples, where the first batch
    has shown that to be right; `through`: the matrices of a projected layer."""

    site: Site
    layer: Layer
    order: Order | None
    through: Matrices | None


def run(
    model: nn.Module, batch: Any, forward: Forward, loss: PerSample, names: Mapping[nn.Module, str], cut: bool
) -> Run:
    """Forward and, behind the first of the modules in `names` (everywhere if not `cut`), backward."""
    with recording(model, names, cut) as recorder:
        outputs, targets = forward(model, batch)
        with torch.enable_grad():
            losses = loss(outputs, targets)
            recorder.is_on = False
            grads = gradients_at(losses, recorder.calls, torch.ones_like(losses))
            check_parts(loss, outputs, targets, losses)
    return Run(losses, targets, recorder.calls, grads)


def sites_of(model: nn.Module, choice: Choice, batch: Any, forward: Forward, loss: PerSample) -> tuple[list[Site], Run]:
    """The layers to score, and a run of this batch with all gradients on, by which each one's weight is checked."""
    seen = run(model, batch, forward, loss, recordable(model), cut=False)
    check_finite("loss", seen.losses)
    if not seen.losses.requires_grad:
        raise ScoreError(
            "the losses do not depend on any trained weight: the forward pass runs without gradients (no_grad, "
            "inference_mode, detach), or all weights are frozen; let it build a graph where gradients are on"
        )
    called = [call.name for call, grad in zip(seen.calls, seen.grads, strict=True) if grad is not None]
    sites = [site_of(model, name) for name in choose(model, choice, called)]
    signs = torch.ones_like(seen.losses)
    signs[1::2] = -1  # at a minimum all gradients sum to 0; with these signs they do not
    signed = gradients_at(seen.losses, seen.calls, signs)
    for site in sites:
        pairs = zip(seen.calls, signed, strict=True)
        check_weight(site, seen.losses, signs, [(c, g) for c, g in pairs if g is not None and c.module in site.holders])
    return sites, seen


def plan(site: Site, seen: Run, seed: int, like: Layer | None = None) -> Plan:
    """How the gradients of a layer are written down: as in `like`, where given. ScoreError where its rows feed several
    samples, and where `like` is of another shape."""
    n, used = len(seen.losses), used_of(site, seen)
    placements = find_placements(seen, used)
    likely = [likely_order(call, n) for call, _ in used]
    is_shown = n > 1 and all(guess and guess == found.order for guess, found in zip(likely, placements, strict=True))
    order = placements[0].order if is_shown and len({found.order for found in placements}) == 1 else None
    layer = _form(site, used, placements, seed)
    if like is not None:
        _check_shape(layer, like)
        layer = like
    if layer.form != "projected":
        return Plan(site, layer, order, None)
    p_out, p_in = (torch.from_numpy(matrix).to(site.weight.device) for matrix in matrices(layer))
    if like is None:
        exactly = [(call, grad, placement) for (call, grad), placement in zip(used, placements, strict=True)]
        layer = replace(layer, error=projection_error(site, exactly, (p_out, p_in)))
    return Plan(site, layer, order, (p_out, p_in))


def _form(site: Site, used: Sequence[tuple[Call, torch.Tensor]], placements: Sequence[Placement], seed: int) -> Layer:
    """Factored where each sample is seen at one position, whole where that is small, otherwise projected."""
    d_out, d_in, bias = len(site.weight), site.weight[0].numel(), site.bias is not None
    layer = Layer(site.name, "dense", d_in, d_out, bias)
    if len(used) == 1 and is_single(used[0][0], placements[0], layer.size > DENSE_LIMIT):
        return replace(layer, form="factored")
    return layer if layer.size <= DENSE_LIMIT else projected_form(site.name, d_in, d_out, bias, seed)


def _check_shape(layer: Layer, like: Layer) -> None:
    if (layer.d_in, layer.d_out, layer.bias) != (like.d_in, like.d_out, like.bias):
        raise ScoreError(
            f"layer {layer.name!r} is {layer.d_out} x {layer.d_in} (bias: {layer.bias}) in the model, and was "
            f"scored as {like.d_out} x {like.d_in} (bias: {like.bias}); pass the model that was trained"
        )


def used_of(site: Site, seen: Run) -> list[tuple[Call, torch.Tensor]]:
    """The calls of a layer that the losses depend on, each with its gradient."""
    pairs = zip(seen.calls, seen.grads, strict=True)
    return [(call, grad) for call, grad in pairs if grad is not None and call.module in site.holders]


def find_placements(seen: Run, used: Sequence[tuple[Call, torch.Tensor]]) -> list[Placement]:
    """Whose the items of each call are, by backward passes."""
    for call, grad in used:
        _check_deltas(call, grad, len(seen.losses))
    owners = find_owners(seen.losses, [call for call, _ in used], [grad for _, grad in used])
    return [placement_of(found, len(seen.losses)) for found in owners]


def is_single(call: Call, placement: Placement, is_large: bool) -> bool:
    """Whether the layer sees each sample at one position, so that its two factors are the whole gradient.

    Rows in no regular order (nodes of a graph) count only where many samples show it, or the layer `is_large`: kept
    whole, they can be several.
    """
    if isinstance(call.module, nn.Embedding):
        return False
    if positions_of(call) > 1 or (isinstance(call.module, Convolution) and call.module.groups > 1):
        return False
    if placement.order is not None:
        return placement.items == placement.n
    owned = placement.owners[placement.owners != NOBODY]
    is_shown = is_large or len(owned) >= SHOWN
    return is_shown and len(owned) > 0 and int(torch.bincount(owned).max()) == 1


def is_cut_right(
    model: nn.Module, batch: Any, forward: Forward, loss: PerSample, sites: Sequence[Site], full: Run
) -> bool:
    """Whether a run in which gradients begin at the layers gives what the full one gave. It does not for models that
    switch gradients on and off themselves, or take some in their forward pass; those are run in full."""
    names = {module: name for site in sites for module, name in site.holders.items()}
    try:
        short = run(model, batch, forward, loss, names, cut=True)
    except RuntimeError:  # a gradient that the model itself takes, of what has none here
        return False
    return all(_is_same(used_of(site, full), used_of(site, short)) for site in sites)


def _is_same(one: Sequence[tuple[Call, torch.Tensor]], other: Sequence[tuple[Call, torch.Tensor]]) -> bool:
    """Whether two runs of one batch called a layer alike, with the same gradients."""
    if [(call.module, call.shape) for call, _ in one] != [(call.module, call.shape) for call, _ in other]:
        return False
    return all(
        bool((a - b).float().norm() <= (1e-3 if a.dtype.itemsize > 2 else 0.05) * a.float().norm())
        for (_, a), (_, b) in zip(one, other, strict=True)
    )


def _check_deltas(call: Call, grad: torch.Tensor, n: int) -> None:
    """ScoreError where the owners could not be found for it: NotFinite if the shape of the output suggests them."""
    rows = items_of(call, grad)
    if torch.isfinite(rows).all():
        return
    bad = (~torch.isfinite(rows)).any(1).nonzero()[:, 0]
    order, what = likely_order(call, n), f"deltas of layer {call.name!r}"
    if order is None:
        raise ScoreError(
            f"NaN or infinity in the {what}, in {len(bad)} of its {len(rows)} rows, whose samples are unknown"
        )
    samples = torch.unique(in_order(order, len(rows), n, rows.device).owners[bad])
    raise NotFinite(what, len(samples), int(samples[0]))
