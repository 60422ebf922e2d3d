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
from fgtrac.events.identity import block_id
from fgtrac.events.schema import NO_STEP, ROLES, STATUS, TRANSFORM

Bytes2D = NDArray[np.uint8]
Columns = tuple[Bytes2D, NDArray[np.uint64], NDArray[np.uint8]]  # keys (n, 33), offsets (n + 1,), values

SAMPLE, CONTENT = 1, 2  # types of index keys
ROW = np.dtype({"names": ["kind", "detail", "entry", "step"], "formats": ["u1", "<u2", "<u8", "<u8"],
                "offsets": [0, 1, 3, 11], "itemsize": 19})  # fmt: skip
KIND = {
    "registered": 1, "role": 2, "transformed": 3, "derived": 4, "used": 5, "neighbour": 6, "delivered": 7,
    "attention": 8, "contribution": 9, "prediction": 10, "erased": 11,
}  # fmt: skip
_NAMED_WITH_STEP = {
    "attention": KIND["attention"],
    "contribution": KIND["contribution"],
    "prediction": KIND["prediction"],
}
_NONE32: Bytes2D = np.empty((0, 32), dtype=np.uint8)


@dataclass(slots=True)
class _Block:
    """One block's parts as they arrive; complete (`ids`) when all are there and hash to its id."""

    parts: int = 0
    pieces: dict[int, bytes] = field(default_factory=dict)
    ids: Bytes2D | None = None


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rows that one entry gives one block: runs of ordinals that share kind, detail and step."""

    block: bytes
    ordinals: NDArray[np.uint32] | None
    registered: Bytes2D | None  # in place of ordinals, which a part has only once its block is whole
    runs: NDArray[np.void]  # ROW, one for each run
    lengths: NDArray[np.int64]


class PostingTable:
    """Accumulates entries in order and gives the index's columns at any point.

    `blocks` are blocks registered by entries that are not added here (the incremental case).
    """

    def __init__(self, blocks: Mapping[bytes, Bytes2D] | None = None) -> None:
        self._blocks = {name: _Block(ids=ids) for name, ids in (blocks or {}).items()}
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

    def missing_parts(self) -> list[bytes]:
        """Blocks of which some part has not been added."""
        return [name for name, block in self._blocks.items() if block.ids is None]

    def columns(self) -> Columns:
        """The index's leaves for what was added so far, in ascending order of key."""
        chunks = [c for c in self._chunks if self._blocks[c.block].ids is not None]
        named = dict.fromkeys(c.block for c in chunks)
        ids, ranks = _rank([self._ids(name) for name in named])
        rank_of = dict(zip(named, ranks, strict=True))
        rows, counts = _sort_rows(chunks, [self._ranks_in(c, rank_of[c.block]) for c in chunks], len(ids))
        some = counts > 0
        contents, content_counts, holders = _group_contents(self._contents)
        keys = np.empty((int(some.sum()) + len(contents), 33), dtype=np.uint8)
        n = len(keys) - len(contents)
        keys[:n, 0], keys[:n, 1:] = SAMPLE, ids[some]
        keys[n:, 0], keys[n:, 1:] = CONTENT, contents
        sizes = np.concatenate([counts[some] * ROW.itemsize, content_counts * 32])
        return keys, _offsets(sizes), np.concatenate([rows.view(np.uint8), holders.reshape(-1)])

    # -- taking entries in ----------------------------------------------------------------------------------------

    def _add_samples(self, number: int, event: Mapping[str, Any]) -> None:
        name, part, ids = event["block"], event["part"], event["ids"]
        digests = np.frombuffer(ids, dtype=np.uint8).reshape(-1, 32)
        block = self._blocks.setdefault(name, _Block(event["parts"]))
        if block.ids is not None:
            _find(name, block.ids, digests)  # registered again: the same samples
        elif event["parts"] != block.parts or block.pieces.get(part, ids) != ids:
            raise ProofError(f"part {part} of block {name.hex()} was registered before with other ids or parts")
        else:
            block.pieces[part] = ids
            if len(block.pieces) == block.parts:
                block.ids = _assemble(name, block)
        self._chunks.append(_Chunk(name, None, digests, _run(number, KIND["registered"]), np.array([len(digests)])))
        if "contents" in event:
            self._contents.append((np.frombuffer(event["contents"], dtype=np.uint8).reshape(-1, 32), digests))

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
        if not chosen.all():
            if not chosen.any():
                return
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
                run = _run(number, KIND["transformed"], TRANSFORM[code])
                self._append(event["block"], event[column], run, np.array([len(event[column])]))
        if "children" in event:
            children = event["children"]
            self._append(event["child_block"], children, _run(number, KIND["derived"]), np.array([len(children)]))

    def _name(self, number: int, event: Mapping[str, Any], kind: int, detail: int = 0, step: int = NO_STEP) -> None:
        ordinals = event["ordinals"]
        self._append(event["block"], ordinals, _run(number, kind, detail, step), np.array([len(ordinals)]))

    def _append(
        self, name: bytes, ordinals: NDArray[np.uint32], runs: NDArray[np.void], lengths: NDArray[np.int64]
    ) -> None:
        ids = self._ids(name)
        if len(ordinals) and int(ordinals.max()) >= len(ids):
            raise ProofError(f"ordinal {ordinals.max()} of block {name.hex()}, which has {len(ids)} samples")
        self._chunks.append(_Chunk(name, ordinals, None, runs, lengths))

    def _ids(self, name: bytes) -> Bytes2D:
        block = self._blocks.get(name)
        if block is None or block.ids is None:
            state = "not registered" if block is None else f"registered in {len(block.pieces)} of {block.parts} parts"
            raise ProofError(f"block {name.hex()} is {state} by any earlier entry")
        return block.ids

    def _ranks_in(self, chunk: _Chunk, ranks: NDArray[np.uint32]) -> NDArray[np.uint32]:
        if chunk.ordinals is not None:
            return ranks[chunk.ordinals]
        assert chunk.registered is not None
        start = _find(chunk.block, self._ids(chunk.block), chunk.registered)
        return ranks[start : start + len(chunk.registered)]


def merge(old: Columns, new: Columns) -> Columns:
    """The columns of both: `new` comes from entries after those of `old`. Equal to building all from scratch."""
    samples, contents = [], []
    for keys, offsets, values in (old, new):
        n = int(np.searchsorted(keys[:, 0], CONTENT))
        cut = int(offsets[n])
        rows = np.frombuffer(values[:cut].tobytes(), dtype=ROW)
        samples.append((keys[:n, 1:], np.diff(offsets[: n + 1].astype(np.int64)) // ROW.itemsize, rows))
        holders = np.diff(offsets[n:].astype(np.int64)) // 32
        contents.append((np.repeat(keys[n:, 1:], holders, axis=0), values[cut:].reshape(-1, 32)))
    ids, ranks = _rank([s[0] for s in samples])
    counts = np.zeros(len(ids), dtype=np.int64)
    for (_ids, sizes, _rows), rank in zip(samples, ranks, strict=True):
        counts[rank] += sizes
    rows = np.empty(int(counts.sum()), dtype=ROW)
    filled = np.cumsum(counts) - counts
    for (_ids, sizes, part), rank in zip(samples, ranks, strict=True):
        places = np.repeat(filled[rank] - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(part))
        rows[places] = part
        filled[rank] += sizes
    digests, content_counts, holders = _group_contents(contents)
    keys = np.empty((len(ids) + len(digests), 33), dtype=np.uint8)
    keys[: len(ids), 0], keys[: len(ids), 1:] = SAMPLE, ids
    keys[len(ids) :, 0], keys[len(ids) :, 1:] = CONTENT, digests
    sizes = np.concatenate([counts * ROW.itemsize, content_counts * 32])
    return keys, _offsets(sizes), np.concatenate([rows.view(np.uint8), holders.reshape(-1)])


def registered_entries(columns: Columns) -> NDArray[np.uint64]:
    """The numbers of the `samples` entries that the columns' rows came from, ascending."""
    keys, offsets, values = columns
    cut = int(offsets[int(np.searchsorted(keys[:, 0], CONTENT))])
    rows = np.frombuffer(memoryview(np.ascontiguousarray(values[:cut])), dtype=ROW)
    return np.unique(rows["entry"][rows["kind"] == KIND["registered"]])


def decode_rows(value: bytes | memoryview) -> NDArray[np.void]:
    """A sample's value as a structured array of ROW. FormatError for a torn, unordered or unknown row."""
    if len(value) % ROW.itemsize:
        raise FormatError(f"a sample's value has {len(value)} bytes; rows have {ROW.itemsize} each")
    rows = np.frombuffer(value, dtype=ROW)
    if len(rows) and (rows["kind"].min() < 1 or rows["kind"].max() > len(KIND)):
        raise FormatError(f"a row of kind {rows['kind'].max()}; kinds are 1 to {len(KIND)}")
    order = np.lexsort((rows["step"], rows["detail"], rows["kind"], rows["entry"]))
    if not np.array_equal(rows[order], rows):
        raise FormatError("a sample's rows do not ascend by entry, kind, detail and step")
    return rows


# -- columns ------------------------------------------------------------------------------------------------------


def _run(entry: int, kind: int, detail: int = 0, step: int = NO_STEP) -> NDArray[np.void]:
    return np.array([(kind, detail, entry, step)], dtype=ROW)


def _assemble(name: bytes, block: _Block) -> Bytes2D:
    if set(block.pieces) != set(range(block.parts)):
        raise ProofError(f"block {name.hex()} has parts {sorted(block.pieces)[:4]} of {block.parts}")
    joined = b"".join(block.pieces[p] for p in range(block.parts))
    if block_id(joined) != name:
        raise ProofError(f"block {name.hex()} is not the hash of its ids, which is {block_id(joined).hex()}")
    ids = np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)
    order = _order(ids)
    if (np.diff(order) != 1).any() or (ids[1:] == ids[:-1]).all(axis=1).any():
        raise ProofError(f"the ids of block {name.hex()} do not ascend, each once")
    return ids


def _find(name: bytes, ids: Bytes2D, part: Bytes2D) -> int:
    """Where a registered part begins in its block. ProofError unless it stands there whole."""
    first = part[0].tobytes()
    start = bisect.bisect_left(range(len(ids)), first, key=lambda i: ids[i].tobytes())
    if not np.array_equal(ids[start : start + len(part)], part):
        raise ProofError(f"block {name.hex()} was registered with other ids than those from {first.hex()} on")
    return start


def _order(rows: Bytes2D) -> NDArray[np.intp]:
    """The order that sorts byte rows (n, 8 k): by the first eight bytes, and by the rest where those are equal."""
    words = np.ascontiguousarray(rows).view(">u8")
    first = words[:, 0].astype(np.uint64)
    if (first[1:] > first[:-1]).all():
        return np.arange(len(rows))
    order = np.argsort(first, kind="stable")
    same = first[order[1:]] == first[order[:-1]]
    if same.any():
        tied = np.zeros(len(rows), dtype=bool)
        tied[1:] |= same
        tied[:-1] |= same
        places = np.flatnonzero(tied)
        members = order[places]
        order[places] = members[np.lexsort(tuple(words[members].T[::-1]))]
    return order


def _rank(groups: list[Bytes2D]) -> tuple[Bytes2D, list[NDArray[np.uint32]]]:
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
    run_of = np.repeat(np.arange(len(runs), dtype=np.uint32), lengths)
    return runs[run_of[places]], counts


def _group_contents(pairs: list[tuple[Bytes2D, Bytes2D]]) -> tuple[Bytes2D, NDArray[np.int64], Bytes2D]:
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
