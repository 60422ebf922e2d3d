"""Rows of bytes are cut into ranges of about the size that is asked for, however they are laid out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fgtrac.store.index_register import SAMPLED, cut_evenly
from fgtrac.store.index_units import lower

ROWS, AT_ONCE = 1 << 16, 1 << 12
STEP = AT_ONCE // SAMPLED  # of so many rows one is looked at


@pytest.mark.parametrize("block", [1, STEP // 2, STEP, 4 * STEP, 1000, ROWS])
@pytest.mark.parametrize("groups", [1, 16])
def test_ascending_blocks_of_any_length_are_cut_into_ranges_of_about_the_size_asked_for(
    block: int, groups: int
) -> None:
    keys = np.random.default_rng(block).integers(0, 1 << 48, ROWS, dtype=np.uint64)
    for start in range(0, ROWS, block):
        keys[start : start + block].sort()
    rows = np.zeros((ROWS, 32), np.uint8)
    rows[:, :8] = keys.astype(">u8").view(np.uint8).reshape(-1, 8)
    borders = list(cut_evenly(np.split(rows, groups), AT_ONCE))
    assert borders == list(cut_evenly(np.split(rows, groups), AT_ONCE))
    assert borders[-1] == b""
    ordered = rows[np.argsort(keys)]
    sizes = np.diff([0, *(lower(ordered, border) for border in borders[:-1]), ROWS])
    assert sizes.sum() == ROWS
    assert AT_ONCE / 2 < sizes[:-1].min() <= sizes.max() < 2 * AT_ONCE
    assert all(a < b for a, b in pairwise(borders[:-1]))
