"""Who is made of whom: the parents of each row that a stage made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Families:
    """The parents of each new row: positions `parents[offsets[i]:offsets[i + 1]]` are those of row i.

    `offsets` is (rows + 1,) and `parents` (pairs,) int64. `starts` and `stops`, (pairs,) each or None, say which items
    of the parent's sequence the row has.
    """

    offsets: Positions
    parents: Positions
    starts: Positions | None = None
    stops: Positions | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def owners(self) -> Positions:
        """(pairs,) the row of each pair."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def has_same_parents(self, other: Families) -> bool:
        """Whether each row is made of the same ones there, in whatever order."""
        if not np.array_equal(self.offsets, other.offsets):
            return False
        mine, theirs = (one.parents[np.lexsort((one.parents, one.owners))] for one in (self, other))
        return np.array_equal(mine, theirs)

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Families:
        """Those of a list for each row."""
        sizes = [len(positions) for positions in lists]
        flat = [p for positions in lists for p in positions]
        return cls(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), np.array(flat, dtype=np.int64))
