"""Batches that hold another number of samples than were drawn: which shapes say so, and which do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fgtrac.capture.collate import holds_other_count

IMAGE = torch.zeros(3, 8, 8)


def pair(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(rows, 4), torch.zeros(rows, dtype=torch.long)


@pytest.mark.parametrize(
    ("drawn", "batch"),
    [
        (2, pair(1)),  # as many fields as samples were drawn
        (4, (*pair(3), *pair(3))),
        (2, (torch.zeros(1, 4), torch.zeros(1, 4))),
        (4, {"x": torch.zeros(3, 5), "classes": ["a", "b", "c", "d"]}),
        (3, {"x": torch.zeros(2, 4), "names": ["a", "b"]}),
        (2, ((IMAGE,), (1,))),  # lists of samples, one for each field
        (2, [(IMAGE, 1)]),  # and the other way round
        (4, torch.zeros(3, 4)),  # as wide as samples were drawn
        (3, None),
        (3, []),
        (3, torch.zeros(0, 4)),
        (3, torch.zeros(1, 12)),
    ],
)
def test_a_batch_of_another_number_is_noticed(drawn: int, batch: Any) -> None:
    assert holds_other_count(drawn, batch)


@pytest.mark.parametrize(
    ("drawn", "batch"),
    [
        (2, pair(2)),
        (4, {"x": torch.zeros(3, 4, 5), "lengths": [3, 3, 2, 1]}),  # time first
        (8, (torch.zeros(5, 8, 2), torch.zeros(4, 8, 2))),
        (8, (torch.zeros(30, 8), torch.zeros(30, 8, dtype=torch.long))),
        (2, ((IMAGE, IMAGE), (1, 0))),
        (5, ((IMAGE,) * 5, ["a"] * 5)),
        (5, [(IMAGE, 1)] * 5),
        (5, [{"x": IMAGE}] * 5),
        (3, [[1, 2], [3], [4, 5, 6]]),
        (3, torch.zeros(6, 4)),  # two views of each
        (1, IMAGE),
        (4, 7),
    ],
)
def test_a_whole_batch_is_left_in_peace(drawn: int, batch: Any) -> None:
    assert not holds_other_count(drawn, batch)
