"""Row numbers that came through a stage in a column of their own: one for each row, or a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.families import Families


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """How many numbers each row has, (rows,), and the numbers one row after another: positions in one source."""

    sizes: NDArray[np.int64]
    values: NDArray[np.int64]


def of_values(values: NDArray[Any]) -> Numbers:
    """From a number for each row, NaN where a row has none. ValueError for what is no whole number."""
    if values.dtype.kind == "f":
        there = ~np.isnan(values)
        whole = values[there]
        if (whole != np.floor(whole)).any():
            raise ValueError("the column of row numbers was changed: it has fractions; let the function leave it alone")
        return Numbers(there.astype(np.int64), whole.astype(np.int64))
    if values.dtype.kind not in "iu":
        raise ValueError(f"the column of row numbers was changed to {values.dtype}; let the function leave it alone")
    return Numbers(np.ones(len(values), dtype=np.int64), values.astype(np.int64))


def of_lists(cells: Sequence[Any] | NDArray[Any]) -> Numbers:
    """From a list of numbers (a number, or None) in each row."""
    lists = [_cell(cell) for cell in cells]
    flat = of_values(np.concatenate([np.zeros(0, np.int64), *lists]))
    return Numbers(np.array([len(one) for one in lists], dtype=np.int64), flat.values)


def _cell(cell: Any) -> NDArray[Any]:
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return np.zeros(0, np.int64)
    return np.atleast_1d(np.asarray(cell))


def more_numberings(rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two other numberings of so many rows, (rows,) each: falling, and in no order, both with uneven gaps. What a
    function computes with numbers (a maximum, a median, a mean, a count) names other rows by one of them, or none."""
    drawn = np.random.default_rng(rows)
    falling = np.cumsum(drawn.integers(1, max(2, (1 << 50) // max(1, rows)), rows))[::-1].copy()
    return falling, drawn.permutation(falling)


def positions_of(found: Numbers, numbering: NDArray[np.int64]) -> Numbers:
    """The positions of rows that were numbered so. ValueError for a number that no row has."""
    order = np.argsort(numbering)
    places = np.searchsorted(numbering, found.values, sorter=order)
    inside = places < len(numbering)
    positions = order[places[inside]]
    if not inside.all() or not np.array_equal(numbering[positions], found.values):
        raise ValueError("the column of row numbers was changed: it has numbers that no row had")
    return Numbers(found.sizes, positions)


def take_rows(numbers: Numbers, rows: NDArray[np.int64]) -> Numbers:
    """The numbers of chosen rows, in that order."""
    sizes = numbers.sizes[rows]
    starts = (np.cumsum(numbers.sizes) - numbers.sizes)[rows]
    shift = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
    return Numbers(sizes, numbers.values[np.arange(len(shift)) + shift])


def families_of(found: Sequence[Numbers], lengths: Sequence[int]) -> Families:
    """The parents of each row among several sources of `lengths` rows, laid end to end: each once, in the order of the
    sources. ValueError for a number that no row has."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for numbers, length in zip(found, lengths, strict=True):
        if len(numbers.values) and not 0 <= numbers.values.min() <= numbers.values.max() < length:
            raise ValueError(
                f"the column of row numbers was changed: it has numbers outside 0 to {length - 1}; "
                "let the function leave it alone"
            )
    if len(found) == 1 and (found[0].sizes == 1).all():
        return Families(np.arange(len(found[0].sizes) + 1), found[0].values)
    rows = np.arange(len(found[0].sizes))
    owners = np.concatenate([np.repeat(rows, numbers.sizes) for numbers in found])
    parents = np.concatenate([n.values + start for n, start in zip(found, starts[:-1], strict=True)])
    if len(found) > 1:
        order = np.argsort(owners, kind="stable")
        owners, parents = owners[order], parents[order]
    if len(parents) > len(rows):
        owners, parents = _each_once(owners, parents, int(starts[-1]))
    return Families(np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(rows)))]), parents)


def _each_once(
    owners: NDArray[np.int64], parents: NDArray[np.int64], limit: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs without those that stand there already."""
    _, first = np.unique(owners * limit + parents, return_index=True)
    if len(first) == len(owners):
        return owners, parents
    first.sort()
    return owners[first], parents[first]
