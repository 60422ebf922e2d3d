"""From entries to sorted runs of postings: an index's rows in pieces, each of which fits in memory where all do not.

First `Registrations` reads the `samples` entries alone and knows where each block's ids lie. Their ascending order
gives each sample its rank. Then `RunTable` takes any range of entries and gives its postings by rank: merged over all
ranges, they are the rows that `PostingTable` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.postings import KIND, ROW, Bytes2D, PostingTable, find_part, run_of

Event = Mapping[str, Any]
BLOCK = np.dtype([("name", "V16"), ("first", "<u8"), ("length", "<u8"), ("whole", "<u8")])
PLACE = np.dtype([("entry", "<u8"), ("first", "<u8"), ("length", "<u8"), ("leaf", "V32")])


class IdRows(Protocol):
    """Where ids are kept, one behind another."""

    def append(self, ids: Bytes2D) -> int:
        """Keep ids (n, 32); the number of the first."""

    def rows(self, first: int, length: int) -> Bytes2D:
        """Ids that were kept, without a copy of them in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Registered:
    """What the `samples` entries of a log say, as arrays.

    `blocks` (BLOCK, by name): each whole block's ids by number of the first, and the entry that made it whole.
    `places` (PLACE, by entry): where the ids of each `samples` entry lie, and its leaf hash.
    `ranks` (uint32, one an id): its place among all samples in ascending order.
    """

    blocks: NDArray[np.void]
    places: NDArray[np.void]
    ranks: NDArray[np.uint32]


class Registrations(PostingTable):
    """Takes the `samples` entries in order, as `PostingTable` does, and keeps the ids of each block once."""

    def __init__(self, ids: IdRows) -> None:
        super().__init__()
        self._ids = ids
        self._whole: dict[bytes, tuple[int, int, int]] = {}
        self._waiting: dict[bytes, dict[int, int]] = {}  # of a block that is not whole: part -> entry
        self._places: dict[int, tuple[int, int]] = {}
        self._leaves: dict[int, bytes] = {}
        self._late: list[int] = []  # entries with a part that another has taken the place of
        self.groups: list[tuple[int, int]] = []  # first and length of ids that ascend

    def register(self, number: int, event: Event, leaf: bytes) -> None:
        """Take `samples` entry `number`, whose leaf hash is given. ProofError as `PostingTable.add`."""
        name, part = event["block"], event["part"]
        self._leaves[number] = leaf
        before = self._blocks.get(name)
        self.recall(number, event)
        block = self._blocks[name]
        waiting = self._waiting.setdefault(name, {})
        if block is not before:  # other parts than before: the later ones stand
            self._late += waiting.values()
            waiting.clear()
        if block.ids is not None and not waiting and name in self._whole:
            first = self._whole[name][0]
            ids = np.frombuffer(event["ids"], np.uint8).reshape(-1, 32)
            self._places[number] = first + find_part(name, block.ids, ids), len(ids)
            return
        if part in waiting:
            self._late.append(waiting[part])
        waiting[part] = number
        if block.ids is not None:
            self._settle(name, number)

    def _settle(self, name: bytes, number: int) -> None:
        """A block has just become whole: keep its ids on disk only, and say where each part is."""
        block = self._blocks[name]
        assert block.ids is not None
        first = self._keep(block.ids)
        block.ids = self._ids.rows(first, len(block.ids))
        self._whole[name] = first, len(block.ids), number
        at = first
        for part, entry in sorted(self._waiting.pop(name).items()):
            length = len(block.pieces[part]) // 32
            self._places[entry] = at, length
            at += length
        block.pieces.clear()

    def _keep(self, ids: Bytes2D) -> int:
        first = self._ids.append(ids)
        self.groups.append((first, len(ids)))
        return first

    def finish(self, event_at: Callable[[int], Event]) -> None:
        """All entries were taken: place those whose block never became whole, and those that others took the place
        of."""
        late = self._late + [n for parts in self._waiting.values() for n in parts.values()]
        for number in sorted(late):
            event = event_at(number)
            name, ids = event["block"], np.frombuffer(event["ids"], np.uint8).reshape(-1, 32)
            whole = self._blocks[name].ids
            place = self._keep(ids) if whole is None else self._whole[name][0] + find_part(name, whole, ids)
            self._places[number] = place, len(ids)

    def registered(self, ranks: NDArray[np.uint32]) -> Registered:
        """The whole, once each id has its rank; of parts that were not placed since an entry is wrong, no ids."""
        blocks = np.array([(n, *said) for n, said in sorted(self._whole.items())], dtype=BLOCK)
        said = [(n, *self._places.get(n, (0, 0)), leaf) for n, leaf in sorted(self._leaves.items())]
        return Registered(blocks, np.array(said, dtype=PLACE), ranks)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """The postings of a range of entries: `ranks` (n,) uint32 ascending, `rows` (n,) uint32 into `table` (ROW); those
    of one rank in the order of the log."""

    ranks: NDArray[np.uint32]
    rows: NDArray[np.uint32]
    table: NDArray[np.void]


class RunTable(PostingTable):
    """Takes the entries of one range in order and gives their postings as a sorted run."""

    def __init__(self, registered: Registered) -> None:
        super().__init__()
        self._ranks = registered.ranks
        self._known = {bytes(name): (first, length, whole) for name, first, length, whole in registered.blocks.tolist()}
        self._places = registered.places
        self._found: list[tuple[NDArray[np.uint32], NDArray[np.void], NDArray[np.int64]]] = []
        self.leaves: dict[int, bytes] = {}  # of the `samples` entries of the range, as the first reading found them

    def _add_samples(self, number: int, event: Event) -> None:
        at = int(np.searchsorted(self._places["entry"], number))
        if at == len(self._places) or int(self._places["entry"][at]) != number:
            raise ProofError("it was no samples entry when the log was first read")
        place = self._places[at]
        self.leaves[number] = bytes(place["leaf"])
        first, length = int(place["first"]), int(place["length"])
        ranks = self._ranks[first : first + length]
        self._found.append((ranks, run_of(number, KIND["registered"]), np.array([length])))

    def _append(
        self, name: bytes, ordinals: NDArray[np.uint32], runs: NDArray[np.void], lengths: NDArray[np.int64]
    ) -> None:
        first, length, whole = self._known.get(name, (0, 0, 2**64))
        if whole >= int(runs["entry"][0]):
            raise ProofError(f"block {name.hex()} is not registered by any earlier entry")
        if len(ordinals) and int(ordinals.max()) >= length:
            raise ProofError(f"ordinal {ordinals.max()} of block {name.hex()}, which has {length} samples")
        self._found.append((self._ranks[first : first + length][ordinals], runs, lengths))

    def run(self) -> Run:
        """The postings so far, by rank. One sort of rank << 32 | place, which is stable because places differ."""
        if not self._found:
            return Run(np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty(0, ROW))
        ranks, tables, lengths = (list(column) for column in zip(*self._found, strict=True))
        table, counts = np.concatenate(tables), np.concatenate(lengths)
        composite = np.concatenate(ranks).astype(np.uint64)
        self._found.clear()
        del ranks
        composite <<= np.uint64(32)
        composite |= np.arange(len(composite), dtype=np.uint64)
        composite.sort()
        rows = np.repeat(np.arange(len(table), dtype=np.uint32), counts)[composite.astype(np.uint32)]
        composite >>= np.uint64(32)
        return Run(composite.astype(np.uint32), rows, table)
