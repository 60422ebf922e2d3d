"""Registered samples as columns: a root's rows, and the positions of any data as rows of roots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.use_entries import Placement


@dataclass(frozen=True, slots=True, eq=False)
class Root:
    """One registered root data set, or one block of a stream (`data` is None): row -> ordinal in its block, and -> id.

    `ordinals` is (n,) uint32; `ids` is (n, 32) uint8 in row order; `contents` likewise, or None where no source is
    known; `subjects` has n (None in the place of a sample that has none), or is None where no sample has one. Of many
    rows, `ids` and `contents` lie in a file of the trace's disk that has no name, and are mapped: memory holds 5 bytes
    a row of them, the ordinal and the roles.
    """

    data: Any
    name: str
    scheme: str
    block: bytes
    ordinals: NDArray[np.uint32]
    ids: NDArray[np.uint8]
    contents: NDArray[np.uint8] | None
    subjects: Sequence[Any] | None

    def __len__(self) -> int:
        return len(self.ordinals)

    def whole(self) -> Resolved:
        """All its rows, in their order."""
        return Resolved((self,), np.zeros(len(self), dtype=np.uint16), np.arange(len(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Resolved:
    """A data set's positions as rows of roots: `which` (n,) uint16 indexes `roots`, `rows` (n,) int64."""

    roots: tuple[Root, ...]
    which: NDArray[np.uint16]
    rows: NDArray[np.int64]

    @property
    def placement(self) -> Placement:
        """Position -> (block, ordinal)."""
        ordinals = self._taken([root.ordinals for root in self.roots], np.empty(len(self.rows), dtype=np.uint32))
        return Placement(tuple(r.block for r in self.roots), ordinals, self.which if len(self.roots) > 1 else None)

    def ids(self) -> NDArray[np.uint8]:
        """(n, 32) uint8: the id at each position."""
        return self._taken([root.ids for root in self.roots], np.empty((len(self.rows), 32), dtype=np.uint8))

    def contents(self) -> NDArray[np.uint8] | None:
        """(n, 32) uint8 content digests, or None where some root's source is unknown."""
        columns = [root.contents for root in self.roots if root.contents is not None]
        if len(columns) < len(self.roots):
            return None
        return self._taken(columns, np.empty((len(self.rows), 32), dtype=np.uint8))

    def subjects(self) -> list[Any] | None:
        """The subject at each position, None where there is none; or None where no root's samples have one."""
        columns = [root.subjects for root in self.roots]
        if not any(columns):
            return None
        places = zip(self.which.tolist(), self.rows.tolist(), strict=True)
        return [None if (column := columns[which]) is None else column[row] for which, row in places]

    def by_block(self, positions: NDArray[np.int64] | None = None) -> Iterator[tuple[bytes, NDArray[np.intp]]]:
        """For each block touched: its id and the places within `positions` (default: all) that lie in it."""
        which = self.which if positions is None else self.which[positions]
        for number, root in enumerate(self.roots):
            here = np.flatnonzero(which == number)
            if len(here):
                yield root.block, here

    def _taken(self, columns: Sequence[NDArray[Any]], out: NDArray[Any]) -> NDArray[Any]:
        """The row of a root's column at each position, in `out`."""
        for number, column in enumerate(columns):
            if len(self.roots) == 1:
                return np.take(column, self.rows, axis=0, out=out, mode="wrap")  # the other mode copies first
            mine = self.which == number
            out[mine] = np.take(column, self.rows[mine], axis=0)
        return out


def join_resolved(parts: Sequence[Resolved]) -> Resolved:
    """Several data sets, one behind the other."""
    numbers: dict[int, int] = {}
    roots: list[Root] = []
    which = []
    for part in parts:
        for root in part.roots:
            if numbers.setdefault(id(root), len(roots)) == len(roots):
                roots.append(root)
        numbered = np.array([numbers[id(root)] for root in part.roots], dtype=np.uint16)
        which.append(numbered[part.which])
    return Resolved(tuple(roots), np.concatenate(which), np.concatenate([part.rows for part in parts]))


def select_resolved(data: Resolved, positions: NDArray[Any]) -> Resolved:
    """Chosen positions of a data set, in that order."""
    return Resolved(data.roots, data.which[positions], data.rows[positions])
