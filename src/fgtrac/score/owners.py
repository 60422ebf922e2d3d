"""Which sample each row of a layer's output belongs to: found through the gradients, not guessed from the shape.

A row that feeds the loss of one sample only has, in a backward pass that weighs sample i's loss by 2^e(i), exactly
2^e(i) times its plain gradient: a power of two changes no digit. So a few such passes spell the sample's number, and
a row with another ratio feeds the losses of several samples, whose gradients cannot be told apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from fgtrac.errors import ScoreError
from fgtrac.score.calls import Call, gradients_at

Order = Literal["major", "minor"]
NOBODY = -1
_OVERFLOW = "the gradients overflow when a loss is multiplied by 128; scale the loss, or use float32"


class MixedSamples(ScoreError):
    """Rows of a layer feed the losses of several samples."""


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Which of n samples each item of a call belongs to. An item is a row of a linear layer, an image of a convolution.

    `owners` (items,) int64 says it, where NOBODY has no gradient. `order` is "major" where item r can be taken for
    one of sample r // (items / n), "minor" for r % n, None if neither holds.
    """

    n: int
    order: Order | None
    owners: torch.Tensor

    @property
    def items(self) -> int:
        """How many there are."""
        return len(self.owners)


def in_order(order: Order, items: int, n: int, device: torch.device) -> Placement:
    """The placement of a regular order."""
    row = torch.arange(items, device=device)
    return Placement(n, order, row // (items // n) if order == "major" else row % n)


def placement_of(owners: torch.Tensor, n: int) -> Placement:
    """The regular order of these owners, if they have one."""
    items = len(owners)
    orders: tuple[Order, ...] = ("major", "minor") if items and items % n == 0 else ()
    for order in orders:
        given = in_order(order, items, n, owners.device)
        if ((owners == given.owners) | (owners == NOBODY)).all():
            return replace(given, owners=owners)
    return Placement(n, None, owners)


def items_of(call: Call, rows: torch.Tensor) -> torch.Tensor:
    """The call's output, or its gradient, as (items, numbers)."""
    if isinstance(call.module, nn.Linear | nn.Embedding):
        return rows.reshape(-1, rows.shape[-1])
    batched = rows if rows.ndim == call.module.weight.ndim else rows.unsqueeze(0)
    return batched.flatten(1)


def likely_order(call: Call, n: int) -> Order | None:
    """The order that the shape of the output suggests: samples first, or second; None where it suggests neither."""
    shape = call.shape if isinstance(call.module, nn.Linear | nn.Embedding) else (*call.shape[:1], 1)
    if len(shape) >= 2 and shape[0] == n:
        return "major"
    return "minor" if len(shape) >= 3 and shape[1] == n and math.prod(shape[2:-1]) == 1 else None


def find_owners(
    losses: torch.Tensor, calls: Sequence[Call], plain: Sequence[torch.Tensor | None]
) -> list[torch.Tensor]:
    """(items,) int64 for each call: its items' samples, or NOBODY. `plain`: the gradients of the sum of all losses.

    ScoreError, the caller's fault, where an item feeds several samples.
    """
    rows = [_rows(call, grad, losses) for call, grad in zip(calls, plain, strict=True)]
    for base in (64, 8):  # 2^63 times a gradient may be more than its number format holds, as half precision
        if (found := _spelt(losses, calls, rows, base)) is not None:
            return found
    raise ScoreError(_OVERFLOW)


def check_orders(
    losses: torch.Tensor, calls: Sequence[Call], plain: Sequence[torch.Tensor], orders: Sequence[Order]
) -> None:
    """ScoreError, the caller's fault, where items of some calls are not of the samples that their order says. `plain`
    as in `find_owners`; items without a finite gradient are left to others. One backward pass for up to 64 samples,
    two for up to 4,096."""
    if len(losses) > 1 and not any(_is_checked(losses, calls, plain, orders, base) for base in (64, 8)):
        raise ScoreError(_OVERFLOW)


def _is_checked(
    losses: torch.Tensor, calls: Sequence[Call], plain: Sequence[torch.Tensor], orders: Sequence[Order], base: int
) -> bool:
    """False where gradients overflow."""
    known = [items_of(call, grad) for call, grad in zip(calls, plain, strict=True)]
    sizes = [torch.linalg.vector_norm(rows, torch.inf, 1) for rows in known]
    owners = [
        in_order(order, len(rows), len(losses), rows.device).owners for rows, order in zip(known, orders, strict=True)
    ]
    for _place, _step, powers in _digits(losses, base):
        weighed = gradients_at(losses, calls, powers)
        for call, grad, rows, size, of in zip(calls, weighed, known, sizes, owners, strict=True):
            power = powers[of].to(rows.dtype)
            apart = torch.addcmul(_rows(call, grad, losses).to(rows.dtype), rows, power[:, None], value=-1)
            off = torch.linalg.vector_norm(apart, torch.inf, 1).masked_fill(~torch.isfinite(size), 0)
            if not torch.isfinite(off).all():
                return False
            _refuse_mixed(call, off > power * (0.01 * size).clamp(min=_least(rows)))
    return True


def _digits(losses: torch.Tensor, base: int) -> Iterator[tuple[int, int, torch.Tensor]]:
    """For each digit of the samples' numbers to this base: its place, the exponents from one to the next, and 2^e(i)
    for each sample."""
    n, place = len(losses), 1
    while place < n or place == 1:
        digits = torch.arange(n, device=losses.device) // place % base
        step = (base - 1) // max(1, min(base, -(-n // place)) - 1)  # far apart, so that even little mixing shows
        yield place, step, torch.exp2((digits * step).to(losses.dtype))
        place *= base


def _spelt(
    losses: torch.Tensor, calls: Sequence[Call], plain: Sequence[torch.Tensor], base: int
) -> list[torch.Tensor] | None:
    """The samples by their digits to this base, a backward pass for each digit; None where gradients overflow."""
    owners = [torch.where(_is_nothing(rows), NOBODY, 0) for rows in plain]
    for place, step, powers in _digits(losses, base):
        for call, grad, rows, of in zip(calls, gradients_at(losses, calls, powers), plain, owners, strict=True):
            weighed = _rows(call, grad, losses)
            if not torch.isfinite(weighed).all():
                return None
            of += place * torch.div(_exponents(call, rows, weighed), step, rounding_mode="floor")
    return owners


def _rows(call: Call, grad: torch.Tensor | None, losses: torch.Tensor) -> torch.Tensor:
    return items_of(call, losses.new_zeros(call.shape) if grad is None else grad)


def _is_nothing(rows: torch.Tensor) -> torch.Tensor:
    """Rows without a gradient, or with one so small that its number format has no digits left to tell by."""
    return rows.abs().amax(1) < _least(rows)


def _least(rows: torch.Tensor) -> float:
    return 1e-5 if rows.dtype == torch.float16 else 1e-34


def _exponents(call: Call, plain: torch.Tensor, weighed: torch.Tensor) -> torch.Tensor:
    """(items,) the powers of two between two gradients; 0 where there is none. ScoreError where it is no power."""
    nothing = _is_nothing(plain)
    scale = plain.float().abs().amax(1).masked_fill(nothing, 1)[:, None]
    plain, weighed = plain / scale, weighed / scale
    ratio = (plain * weighed).sum(1) / (plain * plain).sum(1).masked_fill(nothing, 1)
    exponents = torch.log2(ratio.masked_fill(nothing, 1)).nan_to_num(0).round()
    power = torch.exp2(exponents).masked_fill(nothing, 1)
    _refuse_mixed(call, ~((weighed - power[:, None] * plain).abs().amax(1) <= 0.01 * power))
    return exponents.to(torch.int64)


def _refuse_mixed(call: Call, off: torch.Tensor) -> None:
    if off.any():
        raise MixedSamples(
            f"{int(off.sum())} of {len(off)} rows of layer {call.name!r} feed several samples: a loss without "
            "per-sample terms, or a model that mixes samples behind this layer (a message-passing step does); use a "
            "loss whose term i takes sample i only, or name a layer behind the mixing"
        )
