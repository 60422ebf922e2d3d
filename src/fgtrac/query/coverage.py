"""Which samples were used and which never, by role: counted by block and ordinal, from the entries as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.events.byte_order import order_of
from fgtrac.events.schema import ATTRIBUTION, NO_STEP, ROLES

USED, PERHAPS, DELIVERED, NEIGHBOUR, UNDONE, PREDICTED = (1 << bit for bit in range(6))


@dataclass(frozen=True, slots=True)
class Covered:
    """Samples of one role, counted: `used` in an applied update (of a graph: as a seed); else `perhaps` in a batch that
    may have left it out; else `neighbours` in a graph; else `undone`: any of these, only in updates that a restart went
    back behind; else `delivered` without an update; else `never`. `predicted` have a prediction, whatever else. `role`
    is empty for samples without one; one of two roles counts under both."""

    role: str
    samples: int
    used: int
    perhaps: int
    neighbours: int
    undone: int
    delivered: int
    never: int
    predicted: int


@dataclass(slots=True)
class Coverage:
    """`roles` bits (n,) and `marks` (n,) of each block's samples, by ordinal."""

    by_role: tuple[Covered, ...] = ()
    samples: int = 0
    _ids: dict[bytes, dict[int, NDArray[np.uint8]]] = field(default_factory=dict)  # of each block, by part
    _roles: dict[bytes, NDArray[np.uint8]] = field(default_factory=dict)
    _marks: dict[bytes, NDArray[np.uint8]] = field(default_factory=dict)
    _steps: dict[tuple[int, bytes], NDArray[np.uint64]] = field(default_factory=dict)  # the first of a mark that stands

    def register(self, event: Mapping[str, Any]) -> None:
        """A part of a block; one that another process registers again is the same."""
        ids = np.frombuffer(event["ids"], np.uint8).reshape(-1, 32)
        self._ids.setdefault(bytes(event["block"]), {}).setdefault(event["part"], ids)

    def give_role(self, event: Mapping[str, Any]) -> None:
        """A `roles` entry."""
        self._mark(self._roles, event["block"], event["ordinals"], 1 << ROLES[event["role"]])

    def predict(self, event: Mapping[str, Any]) -> None:
        """A `prediction` entry."""
        self._mark(self._marks, event["block"], event["ordinals"], PREDICTED)

    def use(self, event: Mapping[str, Any], applied: NDArray[np.bool_]) -> None:
        """A `use` entry; `applied` (batches,) says which are updates."""
        among = event["attribution"] == ATTRIBUTION["among"]
        for which, mark in ((applied & ~among, USED), (applied & among, PERHAPS), (~applied, DELIVERED)):
            if which.all():
                self._take(event, event["ordinals"], event["count"], mark)
            elif which.any():
                chosen = np.repeat(which, event["count"])
                self._take(event, event["ordinals"][chosen], np.where(which, event["count"], 0), mark)
        if "hops" in event:
            hops = event["hop_count"].reshape(len(applied), -1)
            taken = np.repeat(np.repeat(applied, hops.shape[1]), hops.reshape(-1))
            counts = np.where(applied, hops.sum(axis=1), 0)
            self._take(event, event["hop_ordinals"][taken], counts, NEIGHBOUR)

    def go_back(self, step: int) -> None:
        """A run goes on from this step: what was used behind it, and not before, is undone."""
        for (mark, block), first in self._steps.items():
            marks = self._marks[block]
            gone = (first > step) & (marks[: len(first)] & np.uint8(mark) != 0)
            marks[: len(first)][gone] = marks[: len(first)][gone] & np.uint8(~mark & 0xFF) | np.uint8(UNDONE)
            first[gone] = NO_STEP

    def finish(self) -> None:
        """Count. A sample of several blocks counts once."""
        roles, marks = self._whole(self._roles), self._whole(self._marks)
        if len(self._ids) > 1:
            ids = np.concatenate([parts[n] for parts in self._ids.values() for n in sorted(parts)])
            order, again = order_of(ids)
            starts = np.ones(len(ids), dtype=bool)
            starts[again] = False
            roles, marks = (np.bitwise_or.reduceat(bits[order], np.flatnonzero(starts)) for bits in (roles, marks))
        self.samples = len(roles)
        lines = [(role, roles & np.uint8(1 << code) != 0) for role, code in ROLES.items()] + [("", roles == 0)]
        self.by_role = tuple(_count(role, marks[mine]) for role, mine in lines if mine.any())
        self._ids, self._roles, self._marks, self._steps = {}, {}, {}, {}

    def _take(self, event: Mapping[str, Any], ordinals: NDArray[Any], counts: NDArray[Any], mark: int) -> None:
        """Samples of a `use` entry get a mark; `counts` (batches,) says how many of them each batch has."""
        block = bytes(event["block"])
        self._mark(self._marks, block, ordinals, mark)
        if mark == DELIVERED:
            return
        first, size = self._steps.get((mark, block), np.empty(0, np.uint64)), self._size(block)
        if len(first) < size:
            first = np.pad(first, (0, size - len(first)), constant_values=np.uint64(NO_STEP))
            self._steps[mark, block] = first
        np.minimum.at(first, ordinals, np.repeat(event["step"], counts.astype(np.int64)))

    def _mark(self, where: dict[bytes, NDArray[np.uint8]], block: bytes, ordinals: NDArray[Any], bit: int) -> None:
        size = self._size(bytes(block))
        bits = where.get(bytes(block), np.empty(0, dtype=np.uint8))
        if len(bits) < size:
            bits = where[bytes(block)] = np.pad(bits, (0, size - len(bits)))
        if len(ordinals) and int(ordinals.max()) >= size:
            raise FormatError(f"ordinal {int(ordinals.max())} of block {bytes(block).hex()}, which has {size} samples")
        bits[ordinals] |= np.uint8(bit)

    def _size(self, block: bytes) -> int:
        return sum(map(len, self._ids.get(block, {}).values()))

    def _whole(self, bits: dict[bytes, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The bits of all blocks in the order of their ids."""
        empty = np.empty(0, dtype=np.uint8)
        pieces = [bits.get(block, empty) for block in self._ids]
        sizes = map(self._size, self._ids)
        return np.concatenate([empty, *(np.pad(p, (0, n - len(p))) for p, n in zip(pieces, sizes, strict=True))])


def _count(role: str, marks: NDArray[np.uint8]) -> Covered:
    """The samples of a role, each under the strongest mark that it has."""
    left, found = np.ones(len(marks), dtype=bool), []
    for mark in (USED, PERHAPS, NEIGHBOUR, UNDONE, DELIVERED):
        mine = left & (marks & np.uint8(mark) != 0)
        found.append(int(mine.sum()))
        left &= ~mine
    used, perhaps, neighbours, undone, delivered = found
    predicted = int((marks & np.uint8(PREDICTED) != 0).sum())
    return Covered(role, len(marks), used, perhaps, neighbours, undone, delivered, int(left.sum()), predicted)
