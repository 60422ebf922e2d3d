"""Sequences cut into windows, or laid end to end and cut into rows of one length: who is made of what."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.families import Families


def windows(sizes: NDArray[np.int64], size: int) -> tuple[Families, NDArray[np.int64]]:
    """Each sequence of `sizes` items in windows of `size`, the last one shorter; and how long each window is."""
    _check(size)
    counts = -(-sizes // size)
    owners = np.repeat(np.arange(len(sizes)), counts)
    starts = (np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)) * size
    stops = np.minimum(starts + size, sizes[owners])
    return Families(np.arange(len(owners) + 1), owners, starts, stops), stops - starts


def pack(sizes: NDArray[np.int64], size: int) -> tuple[Families, int]:
    """Sequences of `sizes` items laid end to end, as rows of `size` items; and how many rows that fills."""
    _check(size)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    rows = int(bounds[-1]) // size
    cuts = np.unique(np.concatenate([bounds[bounds <= rows * size], np.arange(rows + 1) * size]))
    begin = cuts[:-1]
    parents = np.searchsorted(bounds, begin, side="right") - 1  # of empty ones the last, which the item is in
    starts, stops = begin - bounds[parents], cuts[1:] - bounds[parents]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(begin // size, minlength=rows))])
    return Families(offsets.astype(np.int64), parents, starts, stops), rows


def _check(size: int) -> None:
    if type(size) is not int or size < 1:
        raise ValueError(f"size={size!r:.40} is no number of items; give a whole number of at least 1")
