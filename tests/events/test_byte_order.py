"""The order of many ids, against Python's own sorting of the same bytes."""

from __future__ import annotations

import numpy as np
import pytest

from fgtrac.events import byte_order
from fgtrac.events.byte_order import ascend, order_of


def made(rows: int, width: int, values: int, equal: int) -> np.ndarray:
    """Rows of bytes below `values`, whose first `equal` bytes are those of all."""
    out = np.random.default_rng(rows).integers(0, values, (rows, width)).astype(np.uint8)
    out[:, :equal] = 7
    return out


@pytest.mark.parametrize("at_once", [5, 1 << 20])
@pytest.mark.parametrize(
    ("rows", "width", "values", "equal"),
    [(0, 32, 256, 0), (1, 32, 256, 0), (1000, 32, 256, 0), (1000, 32, 2, 31), (300, 64, 3, 60), (400, 8, 2, 0),
     (70, 32, 1, 0)],
)  # fmt: skip
def test_rows_are_put_in_order_and_repeated_ones_told(
    monkeypatch: pytest.MonkeyPatch, at_once: int, rows: int, width: int, values: int, equal: int
) -> None:
    monkeypatch.setattr(byte_order, "AT_ONCE", at_once)
    data = made(rows, width, values, equal)
    plain = [row.tobytes() for row in data]
    order, repeated = order_of(data)
    assert order.tolist() == sorted(range(rows), key=plain.__getitem__)
    ordered = [plain[n] for n in order]
    assert repeated.tolist() == [n for n in range(1, rows) if ordered[n] == ordered[n - 1]]


def test_rows_ascend_where_each_is_behind_the_one_before() -> None:
    data = made(50, 32, 256, 20)
    rows = np.unique(data.view("V32")).view(np.uint8).reshape(-1, 32)
    assert ascend(rows)
    assert ascend(rows[:0])
    for first, second in ((3, 4), (48, 49)):
        swapped, twice = rows.copy(), rows.copy()
        swapped[[first, second]] = rows[[second, first]]
        twice[second] = rows[first]
        assert not ascend(swapped)
        assert not ascend(twice)
