"""What is compared on the first batch: our gradients with autograd's own, and projected products with exact ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from fgtrac.errors import ScoreError
from fgtrac.score.calls import Call
from fgtrac.score.layers import Site
from fgtrac.score.owners import Placement
from fgtrac.score.sums import Matrices, Sides, sides_of, summed

_WHOLE = 1 << 24  # numbers of exact gradients that are made at once; above, products are taken position by position
_SAMPLES = 64
Seen = tuple[Call, torch.Tensor, Placement]  # a call, its gradient, whose items they are


def check_weight(
    site: Site, losses: torch.Tensor, signs: torch.Tensor, seen: Sequence[tuple[Call, torch.Tensor]]
) -> None:
    """The calls of the layer account for the whole gradient of its weight and bias; `seen` has gradients of
    signs . losses. ScoreError where they also act in a way that no call shows: used by other code, or by a subclass
    that does more than a linear layer.
    """
    wanted = [site.weight] if site.bias is None else [site.weight, site.bias]
    with _without_hooks(wanted):
        parts = torch.autograd.grad(losses, wanted, signs, retain_graph=True, materialize_grads=True)
    true = torch.cat([part.to_dense().reshape(len(site.weight), -1) for part in parts], dim=1)
    ours, size = torch.zeros_like(true, dtype=torch.promote_types(true.dtype, torch.float32)), 0.0
    for call, grad in seen:
        ours += _total(site, call, grad, ours)
        size += float(grad.float().norm() * call.inputs.float().norm())
    loose = true.dtype in (torch.float16, torch.bfloat16)
    if (ours - true).norm() > (0.1 if loose else 0.03) * true.norm() + 1e-5 * size:
        raise ScoreError(
            f"weight or bias of layer {site.name!r} act on the loss in other ways than by calls of a plain layer "
            "(they are used elsewhere, or the layer does more than a linear one); name another layer"
        )


@contextmanager
def _without_hooks(weights: Sequence[torch.Tensor]) -> Iterator[None]:
    """What `register_hook` has put on these weights (gradients are clipped so) does not run, and stays."""
    hooks = [(weight, weight._backward_hooks) for weight in weights if weight._backward_hooks]
    try:
        for weight, _ in hooks:
            weight._backward_hooks = None
        yield
    finally:
        for weight, before in hooks:
            weight._backward_hooks = before


def _total(site: Site, call: Call, grad: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A call's whole contribution to the gradient of weight and bias, as a matrix."""
    if isinstance(call.module, nn.Embedding):
        ids, deltas = call.inputs.reshape(-1), grad.reshape(-1, grad.shape[-1]).to(like)
        if call.module.padding_idx is not None:
            deltas = deltas.masked_fill((ids == call.module.padding_idx)[:, None], 0)
        return torch.zeros_like(like).index_add_(0, ids, F.pad(deltas, (0, like.shape[1] - deltas.shape[1])))
    sides = sides_of(site, call, grad)
    merged = Sides(sides.out.flatten(0, 1)[None], sides.into.flatten(0, 1)[None])
    return merged.products()[0]


def projection_error(site: Site, seen: Sequence[Seen], through: Matrices) -> float | None:
    """Root mean square of (projected - exact) over that of the exact inner products, between different samples of the
    batch (at most 64). None where those are all 0, or the batch has one sample."""
    few = _how_many(site, seen)
    if few < 2:
        return None
    small = [_first(one, few) for one in seen]
    places = [placement for _, _, placement in small]
    close = summed([sides_of(site, call, grad, through) for call, grad, _ in small], places).flatten(1)
    exact = _exact_products([sides_of(site, call, grad) for call, grad, _ in small], places)
    other = ~torch.eye(few, dtype=torch.bool, device=exact.device)
    wrong, right = (close @ close.T - exact)[other].norm(), exact[other].norm()
    return float(wrong / right) if right > 0 else None


def _how_many(site: Site, seen: Sequence[Seen]) -> int:
    """So many samples that the exact side stays small: fewer of a larger layer, and of longer samples."""
    n, rows = seen[0][2].n, len(site.weight)
    wide = sum(
        call.inputs.numel() * rows if isinstance(call.module, nn.Embedding) else g.numel() for call, g, _ in seen
    )
    return min(n, _SAMPLES, max(_WHOLE // site.weight.numel(), 8), max(2, 4 * _WHOLE * n // wide))


def _first(one: Seen, few: int) -> Seen:
    """The part of a call that belongs to the first samples."""
    call, grad, placement = one
    items = _separate(call, grad, grad.shape[-1])
    inputs = _separate(call, call.inputs, 1 if isinstance(call.module, nn.Embedding) else call.inputs.shape[-1])
    owners = placement.owners
    which = (owners >= 0) & (owners < few)
    return replace(call, inputs=inputs[which]), items[which], Placement(few, None, owners[which])


def _separate(call: Call, rows: torch.Tensor, width: int) -> torch.Tensor:
    """Inputs or outputs with their items in the first dimension."""
    if isinstance(call.module, nn.Linear | nn.Embedding):
        return rows.reshape(-1, width)
    return rows if rows.ndim == call.module.weight.ndim else rows.unsqueeze(0)


def _exact_products(sides: Sequence[Sides], places: Sequence[Placement]) -> torch.Tensor:
    """(n, n): inner products of the samples' whole gradients."""
    n, size = places[0].n, sides[0].out.shape[2] * sides[0].out.shape[3] * sides[0].into.shape[3]
    if n * size <= _WHOLE:
        whole = summed(sides, places).flatten(1)
        return whole @ whole.T
    lists = [
        [
            torch.cat([getattr(of, side)[p.owners == i].flatten(0, 1) for of, p in zip(sides, places, strict=True)])
            for side in ("out", "into")
        ]
        for i in range(n)
    ]
    products = sides[0].out.new_zeros((n, n))
    for i, (out, into) in enumerate(lists):
        for j, (other_out, other_into) in enumerate(lists[: i + 1]):
            both = torch.einsum("pga,qga->pqg", out, other_out) * torch.einsum("pgb,qgb->pqg", into, other_into)
            products[i, j] = products[j, i] = both.sum()
    return products
