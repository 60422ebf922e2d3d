"""A sample's gradient in one layer as a sum of outer products over all its positions, in all calls of the layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fgtrac.score.calls import Call
from fgtrac.score.layers import Convolution, Site
from fgtrac.score.owners import NOBODY, Placement, items_of

Matrices = tuple[torch.Tensor, torch.Tensor]
_CHUNK = 1 << 22  # numbers made at once where items are added up one by one


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """The two factors of each position: the gradient of item i is, for each group g, the sum over positions of
    `out[i, :, g]` (d_out / groups) times `into[i, :, g]` (d_in + bias)."""

    out: torch.Tensor  # (items, positions, groups, a)
    into: torch.Tensor  # (items, positions, groups, b)

    def products(self) -> torch.Tensor:
        """(items, d_out, d_in + bias): each item's gradient."""
        return (self.out.permute(0, 2, 3, 1) @ self.into.transpose(1, 2)).flatten(1, 2)


def sides_of(site: Site, call: Call, grad: torch.Tensor, through: Matrices | None = None) -> Sides:
    """Both sides of a call, in float32 (float64 in a model of that); `through` P_out (k_out, d_out) and
    P_in (k_in, d_in + bias) where given, which makes one group of all."""
    module = call.module
    deltas = grad.detach().to(torch.float64 if grad.dtype == torch.float64 else torch.float32)
    if isinstance(module, nn.Embedding):
        out, into = _of_embedding(module, call.inputs, deltas, through)
    elif isinstance(module, nn.Linear):
        out, into = items_of(call, deltas)[:, None, None], call.inputs.reshape(-1, 1, 1, module.in_features)
    else:
        assert isinstance(module, Convolution)
        out, into = _of_convolution(module, call.inputs, deltas)
    into = into.to(deltas.dtype)
    if site.bias is not None:
        ones = into.new_full((*into.shape[:-1], 1), float(module._parameters.get("bias") is site.bias))
        into = torch.cat([into, ones], dim=-1)
    if through is None:
        return Sides(out, into)
    p_out, p_in = (matrix.to(deltas) for matrix in through)
    if not isinstance(module, nn.Embedding):
        out = torch.einsum("ilga,kga->ilgk", out, p_out.reshape(len(p_out), out.shape[2], -1))
    return Sides(out.flatten(1, 2)[:, :, None], (into @ p_in.T).flatten(1, 2)[:, :, None])


def _of_embedding(
    module: nn.Embedding, ids: torch.Tensor, deltas: torch.Tensor, through: Matrices | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row `id` of the weight gets the delta: one-hot (or its column of P_out) times delta. Padding is not trained."""
    ids, deltas = ids.reshape(-1), deltas.reshape(-1, deltas.shape[-1])
    if module.padding_idx is not None:
        deltas = deltas.masked_fill((ids == module.padding_idx)[:, None], 0)
    out = F.one_hot(ids, module.num_embeddings) if through is None else through[0].to(deltas).T[ids]
    return out.to(deltas)[:, None, None], deltas[:, None, None]


def _of_convolution(
    module: Convolution, inputs: torch.Tensor, deltas: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each position of the output against the patch of inputs that it saw."""
    if deltas.ndim < module.weight.ndim:
        inputs, deltas = inputs.unsqueeze(0), deltas.unsqueeze(0)
    places = module.weight.ndim - 2
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    patches = F.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    for k in range(places):
        size, dilation = module.kernel_size[k], module.dilation[k]
        patches = patches.unfold(2 + k, dilation * (size - 1) + 1, module.stride[k])[..., ::dilation]
    items, groups = len(patches), module.groups
    patches = patches.reshape(items, groups, -1, *patches.shape[2:])  # (items, groups, channels, places..., kernel...)
    order = (0, *range(3, 3 + places), 1, 2, *range(3 + places, 3 + 2 * places))
    into = patches.permute(order).reshape(items, -1, groups, module.weight[0].numel())
    return deltas.flatten(2).transpose(1, 2).reshape(items, into.shape[1], groups, -1), into


def summed(sides: Sequence[Sides], placements: Sequence[Placement]) -> torch.Tensor:
    """(n, d_out, d_in + bias): the gradients of the samples, over all calls."""
    first, *more = (_by_sample(of, placement) for of, placement in zip(sides, placements, strict=True))
    for other in more:
        first = first + other
    return first


def _by_sample(sides: Sides, placement: Placement) -> torch.Tensor:
    if placement.order is None:
        return _added_up(sides, placement)
    return Sides(_in_order(sides.out, placement), _in_order(sides.into, placement)).products()


def _in_order(side: torch.Tensor, placement: Placement) -> torch.Tensor:
    """(items, positions, ...) to (n, positions of the sample, ...)."""
    if placement.order == "minor":
        side = side.reshape(-1, placement.n, *side.shape[1:]).transpose(0, 1)
    return side.reshape(placement.n, -1, *side.shape[-2:])


def _added_up(sides: Sides, placement: Placement) -> torch.Tensor:
    shape = (sides.out.shape[2] * sides.out.shape[3], sides.into.shape[3])
    total = sides.out.new_zeros((placement.n, *shape))
    kept = (placement.owners != NOBODY).nonzero()[:, 0]
    for some in torch.split(kept, max(1, _CHUNK // (shape[0] * shape[1]))):
        total.index_add_(0, placement.owners[some], Sides(sides.out[some], sides.into[some]).products())
    return total


def positions_of(call: Call) -> int:
    """How many positions of each item the layer sees: 1, or those of a convolution's output."""
    module = call.module
    return math.prod(call.shape[2 - module.weight.ndim :]) if isinstance(module, Convolution) else 1
