"""Which samples were used and which never, by role: counted by block and ordinal, from the entries as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.events.byte_order import order_of
from fgtrac.events.schema import ATTRIBUTION, ROLES

USED, PERHAPS, DELIVERED, NEIGHBOUR, PREDICTED = (1 << bit for bit in range(3, 8))  # beside the roles' bits


@dataclass(frozen=True, slots=True)
class Covered:
    """Samples of one role, counted: `used` in an applied update (of a graph: as a seed); else `perhaps` in a batch that
    may have left it out; else `neighbours` in a graph; else `delivered` without an update; else `never`. `predicted`
    have a prediction, whatever else. `role` is empty for samples without one; one of two roles counts under both."""

    role: str
    samples: int
    used: int
    perhaps: int
    neighbours: int
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
                self._mark(self._marks, event["block"], event["ordinals"], mark)
            elif which.any():
                self._mark(self._marks, event["block"], event["ordinals"][np.repeat(which, event["count"])], mark)
        if "hops" in event:
            hops = event["hop_count"].reshape(len(applied), -1)
            taken = np.repeat(np.repeat(applied, hops.shape[1]), hops.reshape(-1))
            self._mark(self._marks, event["block"], event["hop_ordinals"][taken], NEIGHBOUR)

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
        self._ids, self._roles, self._marks = {}, {}, {}

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
    for mark in (USED, PERHAPS, NEIGHBOUR, DELIVERED):
        mine = left & (marks & np.uint8(mark) != 0)
        found.append(int(mine.sum()))
        left &= ~mine
    used, perhaps, neighbours, delivered = found
    predicted = int((marks & np.uint8(PREDICTED) != 0).sum())
    return Covered(role, len(marks), used, perhaps, neighbours, delivered, int(left.sum()), predicted)
