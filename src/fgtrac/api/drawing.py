"""Rows of entries drawn at random, for checks of so many: none is drawn twice, each as likely as another."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.schema import decode_event
from fgtrac.verify.tree import Log


@dataclass(frozen=True, slots=True)
class Drawn:
    """Some rows of one entry: `places` in its `ordinals`, ascending."""

    number: int
    event: Mapping[str, Any]
    places: NDArray[np.int64]


def draw_rows(log: Log, numbers: Sequence[int], count: int, seed: int) -> tuple[list[Drawn], int]:
    """`count` rows (all, where there are fewer) of the entries of these numbers, ascending; and how many there are."""
    starts = [0, *accumulate(len(decode_event(entry)["ordinals"]) for _number, entry in log.entries(numbers))]
    drawn = np.array(sorted(random.Random(seed).sample(range(starts[-1]), min(count, starts[-1]))), dtype=np.int64)
    of = np.searchsorted(starts, drawn, side="right") - 1
    wanted = np.unique(of).tolist()
    entries = log.entries([numbers[i] for i in wanted])
    found = [
        Drawn(number, decode_event(entry), drawn[of == i] - starts[i])
        for i, (number, entry) in zip(wanted, entries, strict=True)
    ]
    return found, starts[-1]
