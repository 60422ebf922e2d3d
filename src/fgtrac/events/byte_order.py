"""The ascending order of many rows of bytes, such as ids, at the speed of sorting integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 1 << 20  # rows looked at together, so that nothing beside the result grows with their number


def order_of(rows: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """(n,) uint32: the order that sorts rows of bytes (n, 8 k), equal ones in the order in which they stand; and the
    places in it, ascending, whose rows are equal to the one before.

    What is sorted is one integer a row: the first bits of its bytes, and in the rest of 64 its number; rows whose first
    bits are equal are compared whole. Beside the result that takes 8 bytes a row. ValueError for 2^32 rows and more.
    """
    n = len(rows)
    if n >= 1 << 32:
        raise ValueError(f"{n} rows are too many to be numbered in 32 bits")
    bits = np.uint64(n.bit_length())
    numbered = np.empty(n, dtype=np.uint64)
    for start in range(0, n, AT_ONCE):
        piece = np.ascontiguousarray(rows[start : start + AT_ONCE, :8]).view(">u8").reshape(-1)
        numbered[start : start + len(piece)] = piece.astype(np.uint64) >> bits << bits
        numbered[start : start + len(piece)] |= np.arange(start, start + len(piece), dtype=np.uint64)
    numbered.sort()
    order, tied = np.empty(n, dtype=np.uint32), [np.empty(0, dtype=np.intp)]
    for start in range(0, n, AT_ONCE):
        piece = numbered[start : start + AT_ONCE + 1]
        order[start : start + AT_ONCE] = (piece & ((np.uint64(1) << bits) - np.uint64(1)))[:AT_ONCE]
        firsts = piece >> bits
        tied.append(start + np.flatnonzero(firsts[1:] == firsts[:-1]))
    first = np.concatenate(tied)
    places = np.union1d(first, first + 1)
    members = order[places]
    words = np.ascontiguousarray(rows[members]).view(">u8")
    within = np.lexsort((members, *words.T[::-1]))
    order[places], words = members[within], words[within]
    return order, places[1:][(words[1:] == words[:-1]).all(axis=1)]


def ascend(rows: NDArray[np.uint8]) -> bool:
    """Whether rows of bytes (n, 8 k) ascend, each once."""
    if begin_ascending(rows):
        return True
    order, repeated = order_of(rows)
    return not len(repeated) and np.array_equal(order, np.arange(len(rows)))


def begin_ascending(rows: NDArray[np.uint8]) -> bool:
    """Whether the first eight bytes of the rows ascend, so that the rows do."""
    first = np.ascontiguousarray(rows[:, :8]).view(">u8").reshape(-1).astype(np.uint64)
    return bool((first[1:] > first[:-1]).all())
