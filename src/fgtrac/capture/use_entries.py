"""Settled batches as columns, and as `use` entries of at most 60,000 bytes of columns each."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # it needs torch
    from fgtrac.capture.hops import Hops

ENTRY_PAYLOAD_BYTES = 60_000  # of columns in one entry; the rest of the 65,535 is for its fixed fields
BATCH_COLUMN_BYTES = 22  # epoch, batch, step, status, attribution, count of one batch
GRAPH_ENTRIES = 8  # that batches with neighbours wait for: the second costs a fifth of the first, whose code is cold
NODE_BYTES = 4  # of a neighbour, and of the number of neighbours at one hop


Found = tuple[tuple[bytes, ...], NDArray[np.uint32], NDArray[np.uint16] | None]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the positions of one data set lead: position -> (block, ordinal).

    `blocks` are block ids; `ordinals` is (n,) uint32; `which` is (n,) uint16, an index into `blocks`,
    or None where there is only one block.
    """

    blocks: tuple[bytes, ...]
    ordinals: NDArray[np.uint32]
    which: NDArray[np.uint16] | None

    def places(self, batches: Sequence[array[int]]) -> Found:
        """Where batches of positions lead, one after another. IndexError for a position that the data set has not."""
        positions = np.frombuffer(b"".join(batches), dtype=np.uint32)
        return self.blocks, self.ordinals[positions], None if self.which is None else self.which[positions]


class Places(Protocol):
    """Where the positions of batches lead: blocks, the ordinals (n,) uint32, and (n,) which block, or None for the
    first. Asked once for each batch that is written, and what is recorded meanwhile stands before it in the log."""

    def places(self, batches: Sequence[array[int]]) -> Found: ...


@dataclass(slots=True)
class UseBuffer:
    """Settled batches of one (loader, optimizer), waiting to become entries."""

    placement: Places
    rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)  # epoch, batch, step, status, attribution
    positions: list[array[int]] = field(default_factory=list)
    losses: list[NDArray[np.float16]] = field(default_factory=list)
    hops: list[Hops] = field(default_factory=list)
    bytes: int = 0

    def add(
        self,
        row: tuple[int, int, int, int, int],
        positions: array[int],
        losses: NDArray[np.float16] | None,
        hops: Hops | None,
    ) -> bool:
        """Take one batch; whether there is no room for another like it. All have losses, or none has; so with hops."""
        self.rows.append(row)
        self.positions.append(positions)
        more = BATCH_COLUMN_BYTES + 4 * len(positions)
        if losses is not None:
            self.losses.append(losses)
            more += 2 * len(positions)
        if hops is not None:
            self.hops.append(hops)
            more += NODE_BYTES * (len(hops.nodes) + len(hops.counts))
        self.bytes += more
        return self.bytes + more > ENTRY_PAYLOAD_BYTES * (1 if hops is None else GRAPH_ENTRIES)

    def apart(self) -> Iterator[UseBuffer]:
        """Each batch in a buffer of its own."""
        for at, (row, positions) in enumerate(zip(self.rows, self.positions, strict=True)):
            one = UseBuffer(self.placement)
            one.add(row, positions, self.losses[at] if self.losses else None, self.hops[at] if self.hops else None)
            yield one

    def entries(self) -> Iterator[dict[str, Any]]:
        """The fields of `use` entries that hold these batches, without loader and optimizer. IndexError where a batch
        names a position that its data set does not have."""
        rows = np.array(self.rows, dtype=np.uint64)
        counts = np.fromiter(map(len, self.positions), dtype=np.uint32, count=len(self.positions))
        losses = np.concatenate(self.losses) if self.losses else None
        blocks, ordinals, which = self.placement.places(self.positions)
        if which is None:
            near = self._near(self.placement) if self.hops else None
            yield from _entries_of(blocks[0], rows, counts, ordinals, losses, near)
            return
        batch_of = np.repeat(np.arange(len(counts)), counts)
        for number in np.unique(which).tolist():
            mine = which == number
            here = np.bincount(batch_of[mine], minlength=len(counts)).astype(np.uint32)
            some = here > 0
            part = None if losses is None else losses[mine]
            yield from _entries_of(blocks[number], rows[some], here[some], ordinals[mine], part, None)

    def _near(self, placement: Any) -> _Near:
        ordinals = placement.ordinals
        scratch = np.empty(len(ordinals), dtype=np.uint32)
        batches = zip(self.hops, self.positions, strict=True)
        hops = [one.once(np.frombuffer(seeds, dtype=np.uint32), scratch) for one, seeds in batches]
        counts = np.zeros((len(hops), max(len(one.counts) for one in hops)), dtype=np.uint32)
        for batch, one in enumerate(hops):
            counts[batch, : len(one.counts)] = one.counts
        return _Near(hops[0].graph, counts, ordinals[np.concatenate([one.nodes for one in hops])])


@dataclass(frozen=True, slots=True, eq=False)
class _Near:
    """The neighbours of several batches: `counts` (batches, hops) uint32, `ordinals` one after another."""

    graph: str
    counts: NDArray[np.uint32]
    ordinals: NDArray[np.uint32]


def _entries_of(
    block: bytes,
    rows: NDArray[np.uint64],
    counts: NDArray[np.uint32],
    ordinals: NDArray[np.uint32],
    losses: NDArray[np.float16] | None,
    near: _Near | None,
) -> Iterator[dict[str, Any]]:
    hop_counts = np.zeros((len(counts), 0), dtype=np.uint32) if near is None else near.counts
    for piece in cut_batches(counts, 4 if losses is None else 6, hop_counts):
        columns = rows[piece.first : piece.first + len(piece.counts)]
        fields: dict[str, Any] = {
            "block": block,
            "epoch": columns[:, 0].astype(np.uint32),
            "batch": columns[:, 1].astype(np.uint32),
            "step": np.ascontiguousarray(columns[:, 2]),
            "status": columns[:, 3].astype(np.uint8),
            "attribution": columns[:, 4].astype(np.uint8),
            "count": piece.counts,
            "ordinals": ordinals[piece.samples],
        }
        if losses is not None:
            fields["losses"] = losses[piece.samples]
        if near is not None:
            fields |= {"graph": near.graph, "hops": hop_counts.shape[1], "hop_count": piece.hop_counts.reshape(-1)}
            fields["hop_ordinals"] = near.ordinals[piece.neighbours]
        yield fields


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What goes into one entry: batches from `first` on, or a part of one, `counts` samples of each and `hop_counts`
    (batches, hops) neighbours; where those stand in the columns of all batches."""

    first: int
    samples: slice
    counts: NDArray[np.uint32]
    neighbours: slice
    hop_counts: NDArray[np.uint32]


def cut_batches(counts: NDArray[np.uint32], bytes_a_sample: int, hop_counts: NDArray[np.uint32]) -> Iterator[Piece]:
    """Cut batches of `counts` samples and `hop_counts` (batches, hops) neighbours into entries that fit.

    A batch too large for one entry is cut; its pieces carry the same batch and step, its samples come first.
    """
    batches, hops = hop_counts.shape
    ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    near = np.concatenate([[0], np.cumsum(hop_counts.sum(axis=1, dtype=np.int64))])
    fixed = BATCH_COLUMN_BYTES + NODE_BYTES * hops
    costs = ends * bytes_a_sample + near * NODE_BYTES + np.arange(batches + 1) * fixed
    first = 0
    while first < batches:
        last = int(np.searchsorted(costs, costs[first] + ENTRY_PAYLOAD_BYTES, side="right")) - 1
        if last > first:
            samples, neighbours = slice(ends[first], ends[last]), slice(near[first], near[last])
            yield Piece(first, samples, counts[first:last], neighbours, hop_counts[first:last])
            first = last
            continue
        room, bounds = ENTRY_PAYLOAD_BYTES - fixed, np.concatenate([[0], np.cumsum(hop_counts[first], dtype=np.int64)])
        start, stop, near_start, near_stop = (int(column[at]) for column in (ends, near) for at in (first, first + 1))
        while start < stop or near_start < near_stop:
            some = min(stop - start, room // bytes_a_sample)
            others = min(near_stop - near_start, (room - some * bytes_a_sample) // NODE_BYTES)
            begin = near_start - int(near[first])
            cut = np.diff(np.clip(bounds, begin, begin + others)).astype(np.uint32)
            samples, neighbours = slice(start, start + some), slice(near_start, near_start + others)
            yield Piece(first, samples, np.array([some], dtype=np.uint32), neighbours, cut[None])
            start, near_start = start + some, near_start + others
        first += 1


def pieces(column: NDArray[Any], bytes_each: int) -> Iterator[NDArray[Any]]:
    """A long column cut into pieces that fit one entry, at `bytes_each` a row of at most `ENTRY_PAYLOAD_BYTES`."""
    size = ENTRY_PAYLOAD_BYTES // bytes_each
    for start in range(0, len(column), size):
        yield column[start : start + size]
