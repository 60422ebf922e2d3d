"""How far committed factors may be from those that the model state and the data give: storage, and what rounding does.

What another machine, number of threads or order of sums changes is not guessed but measured: the pass is repeated with
all weights changed by 2^-18 of themselves, which is at least what float32 arithmetic makes of them. Where a factor is
off by more than that, but no more than weights changed by 2^-9 make of it, it may have been computed in TF32, as a GPU
does unasked, or in bfloat16, as autocast or the model's own type make it, by another kernel: it cannot be told. What is
further off is no rounding. (Autocast is part of the model's `forward`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgtrac.score.curvature import Doubles
from fgtrac.score.gradients import Gradients

MARGIN = 8  # times the largest change that was measured: of few draws, one at a time
FLOOR = 2.0**-20  # of the longest factor among the rows: what float32 leaves of a difference, as of a softmax and 1
STORED = {"F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}  # relative rounding of the type in the file
LEAST = {"F32": 2.0**-149, "F16": 2.0**-24, "BF16": 2.0**-133}  # the smallest number that it can hold


@dataclass(frozen=True, slots=True)
class Difference:
    """The number of one row in which what is committed is furthest from what was made anew, and whether rounding can
    have made the row's whole difference: at all (`is_rounding`), or at low precision only (`may_be`). `column` is
    LAYER/NAME, as in the file."""

    column: str
    at: int
    said: float
    found: float
    is_rounding: bool
    may_be: bool


def differences(
    said: Sequence[Gradients],
    found: Sequence[Gradients],
    fine: Sequence[Sequence[Gradients]],
    coarse: Sequence[Sequence[Gradients]],
    types: Sequence[str],
) -> list[Difference]:
    """For each of n rows, what differs most: `said` is committed, in numbers of its type; `found` was made anew, and
    again with weights shaken a little and a lot."""
    parts: list[list[Difference]] = []
    for n, (mine, theirs) in enumerate(zip(said, found, strict=True)):
        for name in ("inputs", "deltas", "dense"):
            if getattr(theirs, name) is not None:
                shaken = [[_column(g[n], name) for g in draws] for draws in (fine, coarse)]
                column = f"{theirs.layer.name}/{name}"
                parts.append(_of_column(column, _column(mine, name), _column(theirs, name), shaken, types))
    return [max(row, key=lambda d: (not d.is_rounding, not d.may_be)) for row in zip(*parts, strict=True)]


def _column(gradients: Gradients, name: str) -> Doubles:
    return np.asarray(getattr(gradients, name), dtype=np.float64)


def _of_column(
    column: str, said: Doubles, found: Doubles, shaken: Sequence[Sequence[Doubles]], types: Sequence[str]
) -> list[Difference]:
    lengths = np.linalg.norm(found, axis=1)
    share, least = (np.array([of[type] for type in types]) for of in (STORED, LEAST))
    stored = share * lengths + least * np.sqrt(found.shape[1]) + FLOOR * lengths.max(initial=0)
    off = np.linalg.norm(said - found, axis=1)
    little, much = (MARGIN * _largest(draws, found) + stored for draws in shaken)
    worst = np.abs(said - found).argmax(axis=1)
    numbers = zip(worst.tolist(), said[range(len(off)), worst], found[range(len(off)), worst], strict=True)
    within = zip((off <= little).tolist(), (off <= much).tolist(), strict=True)
    return [
        Difference(column, at, float(mine), float(theirs), *how)
        for (at, mine, theirs), how in zip(numbers, within, strict=True)
    ]


def _largest(draws: Sequence[Doubles], found: Doubles) -> NDArray[np.float64]:
    """(n,): how far the shaken rows came at most."""
    return np.asarray(np.max([np.linalg.norm(one - found, axis=1) for one in draws], axis=0))
