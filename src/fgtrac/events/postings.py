"""From entries to index rows: which entries name a sample, and how. Columnar throughout, rebuilt by anyone.

A sample's value in the index is its rows, one for each occurrence, ascending by (entry, kind, detail, step); a
content digest's value is the ascending ids that hold it.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError, ProofError
from fgtrac.events.byte_order import ascend, begin_ascending, order_of
from fgtrac.events.identity import block_id
from fgtrac.events.schema import ATTRIBUTION, NO_STEP, ROLES, STATUS, TRANSFORM

Bytes2D = NDArray[np.uint8]
Columns = tuple[Bytes2D, NDArray[np.uint64], NDArray[np.uint8]]  # keys (n, 33), offsets (n + 1,), values

SAMPLE, CONTENT = 1, 2  # types of index keys
ROW = np.dtype({"names": ["kind", "detail", "entry", "step"], "formats": ["u1", "<u2", "<u8", "<u8"],
                "offsets": [0, 1, 3, 11], "itemsize": 19})  # fmt: skip
KIND = {
    "registered": 1, "role": 2, "transformed": 3, "derived": 4, "used": 5, "neighbour": 6, "delivered": 7,
    "attention": 8, "contribution": 9, "prediction": 10, "erased": 11,
}  # fmt: skip
_NAMED_WITH_STEP = {name: KIND[name] for name in ("attention", "contribution", "prediction")}
_DETAILS = np.zeros((len(KIND) + 1, 2), dtype=np.uint16)  # of each kind the least and the greatest detail
for _kind, _least, _most in (
    ("role", 1, len(ROLES)), ("transformed", 1, len(TRANSFORM)), ("used", 1, len(ATTRIBUTION)),
    ("neighbour", 1, 2**16 - 1), ("delivered", STATUS["discarded"], len(STATUS)),
):  # fmt: skip
    _DETAILS[KIND[_kind]] = _least, _most
_NONE32: Bytes2D = np.empty((0, 32), dtype=np.uint8)


@dataclass(slots=True)
class _Block:
    """One block's parts as they arrive; complete (`ids`) when all are there and hash to its id. What was `replaced` by
    later parts must be in it too."""

    parts: int
    replaced: list[bytes] = field(default_factory=list)
    pieces: dict[int, bytes] = field(default_factory=dict)
    ids: Bytes2D | None = None


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rows that one entry gives one block: runs of ordinals that share kind, detail and step."""

    block: bytes
    ordinals: NDArray[Any]  # u32; or, of a registered part, its ids: ordinals wait for the whole block
    runs: NDArray[np.void]  # ROW, one for each run
    lengths: NDArray[np.int64]


class PostingTable:
    """Accumulates entries in order and gives the index's columns at any point."""

    def __init__(self) -> None:
        self._blocks: dict[bytes, _Block] = {}
        self._chunks: list[_Chunk] = []
        self._contents: list[tuple[Bytes2D, Bytes2D]] = []

    def add(self, number: int, event: Mapping[str, Any]) -> None:
        """Take entry `number`. ProofError, naming it, where it speaks of samples that are not registered before it."""
        kind = event["kind"]
        try:
            if kind == "samples":
                self._add_samples(number, event)
            elif kind == "use":
                self._add_use(number, event)
            elif kind == "transform":
                self._add_transform(number, event)
            elif kind == "roles":
                self._name(number, event, KIND["role"], ROLES[event["role"]])
            elif kind in _NAMED_WITH_STEP:
                self._name(number, event, _NAMED_WITH_STEP[kind], 0, event["step"])
            elif kind == "erasure":
                self._name(number, event, KIND["erased"])
        except ProofError as error:
            raise ProofError(f"entry {number} ({kind}): {error}") from None

    def recall(self, number: int, event: Mapping[str, Any]) -> None:
        """Learn the block of `samples` entry `number`, whose rows an older index has: the incremental case."""
        try:
            self._register(event)
        except ProofError as error:
            raise ProofError(f"entry {number} (samples): {error}") from None

    def columns(self) -> Columns:
        """The index's leaves for what was added so far, in ascending order of key."""
        groups: dict[bytes | int, Bytes2D] = {}
        for place, chunk in enumerate(self._chunks):
            whole = self._blocks[chunk.block].ids
            groups.setdefault(place if whole is None else chunk.block, chunk.ordinals if whole is None else whole)
        ids, ranks = rank_ids(list(groups.values()))
        rank_of = dict(zip(groups, ranks, strict=True))
        within = [
            rank_of[place] if place in rank_of else self._ranks_in(chunk, rank_of[chunk.block])
            for place, chunk in enumerate(self._chunks)
        ]
        rows, counts = _sort_rows(self._chunks, within, len(ids))
        some = counts > 0
        contents, content_counts, holders = merge_contents(self._contents)
        keys = np.empty((int(some.sum()) + len(contents), 33), dtype=np.uint8)
        n = len(keys) - len(contents)
        keys[:n, 0], keys[:n, 1:] = SAMPLE, ids[some]
        keys[n:, 0], keys[n:, 1:] = CONTENT, contents
        sizes = np.concatenate([counts[some] * ROW.itemsize, content_counts * 32])
        return keys, _offsets(sizes), np.concatenate([rows.view(np.uint8), holders.reshape(-1)])

    def missing_parts(self) -> list[bytes]:
        """Blocks of which some part has not been added."""
        return [name for name, block in self._blocks.items() if block.ids is None]

    def take(self) -> Columns:
        """`columns`, and forget the rows: what is added afterwards goes to the next columns, to be merged."""
        columns = self.columns()
        self._chunks, self._contents = [], []
        return columns

    # -- taking entries in ----------------------------------------------------------------------------------------

    def _add_samples(self, number: int, event: Mapping[str, Any]) -> None:
        digests = self._register(event)
        run = run_of(number, KIND["registered"])
        self._chunks.append(_Chunk(event["block"], digests, run, np.array([len(digests)])))
        if "contents" in event:
            self._contents.append((np.frombuffer(event["contents"], dtype=np.uint8).reshape(-1, 32), digests))

    def _register(self, event: Mapping[str, Any]) -> Bytes2D:
        """Take one part of a block; its ids (n, 32).

        A registration that a crash cut short is written again from part 0, perhaps in other parts: of a block that
        is not whole yet, the later part stands. Its id, the hash of the whole, settles what it holds, and once it is
        whole what stood before must be a part of it.
        """
        name, ids = event["block"], event["ids"]
        digests = np.frombuffer(ids, dtype=np.uint8).reshape(-1, 32)
        block = self._blocks.get(name)
        if block is None or (block.ids is None and block.parts != event["parts"]):
            replaced = [] if block is None else [*block.replaced, *block.pieces.values()]
            block = self._blocks[name] = _Block(event["parts"], replaced)
        if block.ids is not None:
            start = find_part(name, block.ids, digests)
            at_end = start + len(digests) == len(block.ids)
            if event["part"] and not at_end and start != event["part"] * len(digests):
                raise ProofError(
                    f"part {event['part']} of block {name.hex()} begins at {start}; all parts are of one size"
                )
        else:
            before = block.pieces.get(event["part"], ids)
            if before != ids:
                block.replaced.append(before)
            block.pieces[event["part"]] = ids
            if len(block.pieces) == block.parts:
                block.ids = _assemble(name, block)
                for part in block.replaced:
                    find_part(name, block.ids, np.frombuffer(part, dtype=np.uint8).reshape(-1, 32))
                block.replaced.clear()
        return digests

    def _add_use(self, number: int, event: Mapping[str, Any]) -> None:
        applied = event["status"] == STATUS["applied"]
        counts, ordinals = event["count"].astype(np.int64), event["ordinals"]
        self._batches(number, event, KIND["used"], event["attribution"], event["step"], counts, ordinals, applied)
        if "hops" in event:
            hops = event["hops"]
            hop = np.tile(np.arange(1, hops + 1), len(counts))
            steps, chosen = np.repeat(event["step"], hops), np.repeat(applied, hops)
            hop_counts = event["hop_count"].astype(np.int64)
            self._batches(number, event, KIND["neighbour"], hop, steps, hop_counts, event["hop_ordinals"], chosen)
        self._batches(number, event, KIND["delivered"], event["status"], event["step"], counts, ordinals, ~applied)

    def _batches(
        self,
        number: int,
        event: Mapping[str, Any],
        kind: int,
        detail: NDArray[Any],
        step: NDArray[np.uint64],
        counts: NDArray[np.int64],
        ordinals: NDArray[np.uint32],
        chosen: NDArray[np.bool_],
    ) -> None:
        """One chunk of the chosen batches, in ascending order of (detail, step)."""
        if not chosen.any():
            return
        if not chosen.all():
            ordinals = ordinals[np.repeat(chosen, counts)]
            detail, step, counts = detail[chosen], step[chosen], counts[chosen]
        order = np.lexsort((step, detail))
        if (np.diff(order) != 1).any():
            starts = np.cumsum(counts) - counts
            counts = counts[order]
            new_starts = np.cumsum(counts) - counts
            ordinals = ordinals[np.arange(len(ordinals)) + np.repeat(starts[order] - new_starts, counts)]
            detail, step = detail[order], step[order]
        runs = np.empty(len(counts), dtype=ROW)
        runs["kind"], runs["detail"], runs["entry"], runs["step"] = kind, detail, number, step
        self._append(event["block"], ordinals, runs, counts)

    def _add_transform(self, number: int, event: Mapping[str, Any]) -> None:
        for column, code in (("kept", "kept"), ("dropped", "dropped"), ("parents", "has children")):
            if column in event:
                run = run_of(number, KIND["transformed"], TRANSFORM[code])
                self._append(event["block"], event[column], run, np.array([len(event[column])]))
        if "children" in event:
            children = event["children"]
            self._append(event["child_block"], children, run_of(number, KIND["derived"]), np.array([len(children)]))

    def _name(self, number: int, event: Mapping[str, Any], kind: int, detail: int = 0, step: int = NO_STEP) -> None:
        ordinals = event["ordinals"]
        self._append(event["block"], ordinals, run_of(number, kind, detail, step), np.array([len(ordinals)]))

    def _append(
        self, name: bytes, ordinals: NDArray[np.uint32], runs: NDArray[np.void], lengths: NDArray[np.int64]
    ) -> None:
        ids = self.ids(name)
        if len(ordinals) and int(ordinals.max()) >= len(ids):
            raise ProofError(f"ordinal {ordinals.max()} of block {name.hex()}, which has {len(ids)} samples")
        self._chunks.append(_Chunk(name, ordinals, runs, lengths))

    def ids(self, name: bytes) -> Bytes2D:
        """A block's ids (n, 32) by ordinal. ProofError where the entries added so far do not register all of it."""
        block = self._blocks.get(name)
        if block is None or block.ids is None:
            state = "not registered" if block is None else f"registered in {len(block.pieces)} of {block.parts} parts"
            raise ProofError(f"block {name.hex()} is {state} by any earlier entry")
        return block.ids

    def _ranks_in(self, chunk: _Chunk, ranks: NDArray[np.uint32]) -> NDArray[np.uint32]:
        if chunk.ordinals.ndim == 2:
            start = find_part(chunk.block, self.ids(chunk.block), chunk.ordinals)
            return ranks[start : start + len(chunk.ordinals)]
        found: NDArray[np.uint32] = ranks[chunk.ordinals]
        return found


def merge(old: Columns, new: Columns) -> Columns:
    """The columns of both: `new` comes from entries after those of `old`. Equal to building all from scratch."""
    samples, contents = [], []
    for keys, offsets, values in (old, new):
        n = int(np.searchsorted(keys[:, 0], CONTENT))
        cut = int(offsets[n])
        rows = np.frombuffer(values[:cut].tobytes(), dtype=ROW)
        sizes = (offsets[1:] - offsets[:-1]).astype(np.int64)
        samples.append((keys[:n, 1:], sizes[:n] // ROW.itemsize, rows))
        contents.append((np.repeat(keys[n:, 1:], sizes[n:] // 32, axis=0), values[cut:].reshape(-1, 32)))
    ids, ranks = rank_ids([s[0] for s in samples])
    counts = np.zeros(len(ids), dtype=np.int64)
    for (_ids, sizes, _rows), rank in zip(samples, ranks, strict=True):
        counts[rank] += sizes
    rows = np.empty(int(counts.sum()), dtype=ROW)
    filled = np.cumsum(counts) - counts
    for (_ids, sizes, part), rank in zip(samples, ranks, strict=True):
        places = np.repeat(filled[rank] - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(part))
        rows[places] = part
        filled[rank] += sizes
    digests, content_counts, holders = merge_contents(contents)
    keys = np.empty((len(ids) + len(digests), 33), dtype=np.uint8)
    keys[: len(ids), 0], keys[: len(ids), 1:] = SAMPLE, ids
    keys[len(ids) :, 0], keys[len(ids) :, 1:] = CONTENT, digests
    sizes = np.concatenate([counts * ROW.itemsize, content_counts * 32])
    return keys, _offsets(sizes), np.concatenate([rows.view(np.uint8), holders.reshape(-1)])


def registered_entries(columns: Columns) -> NDArray[np.uint64]:
    """The numbers of the `samples` entries that the columns' rows came from, ascending."""
    keys, offsets, values = columns
    cut = int(offsets[int(np.searchsorted(keys[:, 0], CONTENT))])
    rows = np.frombuffer(np.ascontiguousarray(values[:cut]), dtype=ROW)
    return np.unique(rows["entry"][rows["kind"] == KIND["registered"]])


def decode_rows(value: bytes | memoryview) -> NDArray[np.void]:
    """A sample's value as a structured array of ROW. FormatError for a torn, unordered or unknown row.

    One row an occurrence: equal rows are a sample that a batch holds twice.
    """
    if len(value) % ROW.itemsize:
        raise FormatError(f"a sample's value has {len(value)} bytes; rows have {ROW.itemsize} each")
    rows = np.frombuffer(value, dtype=ROW)
    kinds = rows["kind"]
    if (wrong := kinds[(kinds < 1) | (kinds > len(KIND))]).size:
        raise FormatError(f"a row of kind {wrong[0]}; kinds are 1 to {len(KIND)}")
    least, most = _DETAILS[kinds].T
    if (wrong := rows[(rows["detail"] < least) | (rows["detail"] > most)]).size:
        raise FormatError(f"a row of kind {wrong[0]['kind']} has the detail {wrong[0]['detail']}, which says nothing")
    order = np.lexsort((rows["step"], rows["detail"], rows["kind"], rows["entry"]))
    if not np.array_equal(rows[order], rows):
        raise FormatError("a sample's rows do not ascend by entry, kind, detail and step")
    return rows


# -- columns ------------------------------------------------------------------------------------------------------


def run_of(entry: int, kind: int, detail: int = 0, step: int = NO_STEP) -> NDArray[np.void]:
    """The one row (ROW) that all samples of a run share."""
    return np.array([(kind, detail, entry, step)], dtype=ROW)


def _assemble(name: bytes, block: _Block) -> Bytes2D:
    if set(block.pieces) != set(range(block.parts)):
        raise ProofError(f"block {name.hex()} has parts {sorted(block.pieces)[:4]} of {block.parts}")
    first, last = len(block.pieces[0]), len(block.pieces[block.parts - 1])
    if last > first or any(len(block.pieces[p]) != first for p in range(block.parts - 1)):
        raise ProofError(
            f"the parts of block {name.hex()} differ in size; all but the last are equal, and it is no longer"
        )
    joined = b"".join(block.pieces[p] for p in range(block.parts))
    if block_id(joined) != name:
        raise ProofError(f"block {name.hex()} is not the hash of its ids, which is {block_id(joined).hex()}")
    ids = np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)
    if not ascend(ids):
        raise ProofError(f"the ids of block {name.hex()} do not ascend, each once")
    return ids


def find_part(name: bytes, ids: Bytes2D, part: Bytes2D) -> int:
    """Where a registered part begins in its block. ProofError unless it stands there whole."""
    first = part[0].tobytes()
    start = bisect.bisect_left(range(len(ids)), first, key=lambda i: ids[i].tobytes())
    if not np.array_equal(ids[start : start + len(part)], part):
        raise ProofError(f"block {name.hex()} was registered with other ids than those from {first.hex()} on")
    return start


def _order(rows: Bytes2D) -> NDArray[np.uint32]:
    """The order that sorts byte rows (n, 8 k), which mostly ascend already."""
    return np.arange(len(rows), dtype=np.uint32) if begin_ascending(rows) else order_of(rows)[0]


def rank_ids(groups: list[Bytes2D]) -> tuple[Bytes2D, list[NDArray[np.uint32]]]:
    """The ascending unique ids of all groups, and for each group the rank of each of its rows."""
    if not groups:
        return _NONE32, []
    if len(groups) == 1:
        return groups[0], [np.arange(len(groups[0]), dtype=np.uint32)]
    joined = np.concatenate(groups)
    order = _order(joined)
    ordered = joined[order]
    fresh = np.ones(len(joined), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    ranks = np.empty(len(joined), dtype=np.uint32)
    ranks[order] = np.cumsum(fresh) - 1
    return ordered[fresh], np.split(ranks, np.cumsum([len(g) for g in groups])[:-1])


def _sort_rows(
    chunks: list[_Chunk], ranks: list[NDArray[np.uint32]], n: int
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """All rows grouped by rank, each group in the order of the chunks; and how many rows each rank has.

    One sort of rank << 32 | place: it is stable because places differ, and sorts integers at full speed.
    """
    if not chunks:
        return np.empty(0, dtype=ROW), np.zeros(n, dtype=np.int64)
    runs = np.concatenate([c.runs for c in chunks])
    lengths = np.concatenate([c.lengths for c in chunks])
    composite = np.concatenate(ranks).astype(np.uint64)
    counts = np.bincount(composite, minlength=n)
    composite <<= np.uint64(32)
    composite |= np.arange(len(composite), dtype=np.uint64)
    composite.sort()
    places = composite.astype(np.uint32)  # the low half
    del composite
    row_of = np.repeat(np.arange(len(runs), dtype=np.uint32), lengths)
    return runs.take(row_of[places]), counts


def merge_contents(pairs: list[tuple[Bytes2D, Bytes2D]]) -> tuple[Bytes2D, NDArray[np.int64], Bytes2D]:
    """Unique (content, id) pairs, ascending: the contents, how many ids each has, and the ids."""
    if not pairs:
        return _NONE32, np.zeros(0, dtype=np.int64), _NONE32
    joined = np.concatenate([np.concatenate(pair, axis=1) for pair in pairs])
    joined = joined[_order(joined)]
    fresh = np.ones(len(joined), dtype=bool)
    fresh[1:] = (joined[1:] != joined[:-1]).any(axis=1)
    joined = joined[fresh]
    first = np.ones(len(joined), dtype=bool)
    first[1:] = (joined[1:, :32] != joined[:-1, :32]).any(axis=1)
    starts = np.flatnonzero(first)
    return joined[starts, :32], np.diff(np.append(starts, len(joined))), np.ascontiguousarray(joined[:, 32:])


def _offsets(sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint64)
