"""Tools of a forger: a sealed trace's entries and files, changed, and everything around them made to fit and signed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from fgtrac.commit.plan import Plan, format_plan, parse_plan
from fgtrac.events.postings import KIND, ROW, PostingTable
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.events.totals import Totals
from fgtrac.store import durable
from fgtrac.store.index_files import write_index
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import Columns, Tree, build, value_at
from fgtrac.tlog.note import Note, TreeHead, format_note, format_tree_head, sign_note
from fgtrac.tlog.npy import column_digests
from fgtrac.tlog.tiles import ENTRIES, WIDTH, Tile, encode_bundle, grow, read_bundle, read_entries

Key = Ed25519PrivateKey


class NothingToForgeError(ValueError):
    """The trace is sound, but has nothing of the kind that the lie is about."""


def head_of(trace: TraceDir) -> TreeHead:
    """The trace's tree head. ValueError where it has none: a lie is told about a sealed trace."""
    head = trace.head()
    if head is None:
        raise ValueError(f"{trace.path} is not sealed; run fgtrac seal first")
    return head


def size_of(trace: TraceDir) -> int:
    """The number of sealed entries."""
    return head_of(trace).size


def all_entries(trace: TraceDir) -> list[bytes]:
    """Every sealed entry."""
    size = size_of(trace)
    return list(read_entries(trace, 0, size, size))


def find(trace: TraceDir, kind: str) -> tuple[int, dict[str, Any]]:
    """The number and event of the last entry of a kind: behind it lies less, which makes it the harder lie.
    NothingToForgeError where there is none."""
    for number, entry in reversed(list(enumerate(all_entries(trace)))):
        event = decode_event(entry)
        if event["kind"] == kind:
            return number, event
    raise NothingToForgeError(f"{trace.path} has no {kind} entry to lie about; record some first")


def with_another_sample(event: dict[str, Any]) -> dict[str, Any]:
    """A `use` event whose first sample is its neighbour in the block, which is registered too."""
    ordinals = event["ordinals"].copy()
    ordinals[0] = ordinals[0] - 1 if ordinals[0] else 1
    return event | {"ordinals": ordinals}


def tile_at(trace: TraceDir, level: int, number: int) -> Tile:
    """The tile of that number, as wide as the log has it."""
    return Tile(level, number, min(WIDTH, (size_of(trace) >> 8 * max(level, 0)) - number * WIDTH))


def put_entry(trace: TraceDir, number: int, entry: bytes) -> None:
    """Replace one entry in its bundle."""
    entries = read_bundle(trace, number // WIDTH, size_of(trace))
    entries[number % WIDTH] = entry
    put(trace, tile_at(trace, ENTRIES, number // WIDTH).path, encode_bundle(entries))


def put(trace: TraceDir, path: str, data: bytes) -> None:
    """Replace a file."""
    durable.write_file(trace.path / path, data, sync=False)


def plan_of(trace: TraceDir) -> Plan:
    """The plan of the current head."""
    return parse_plan(trace.read(f"journal/{size_of(trace)}.seal"))


def without_a_use(tree: Tree, sample: bytes | None = None) -> Tree:
    """The tree of the same columns without the last row of use, of one sample or of all, hashed anew."""
    keys = tree.columns.keys
    samples = [n for n in range(int(np.searchsorted(keys[:, 0], 2))) if sample in (None, keys[n].tobytes()[1:])]
    rows = {n: np.frombuffer(value_at(tree, n), dtype=ROW) for n in samples}
    last = max(n for n in samples if (rows[n]["kind"] == KIND["used"]).any())
    used = int(np.flatnonzero(rows[last]["kind"] == KIND["used"])[-1])
    return with_rows(tree, last, np.delete(rows[last], used))


def with_rows(tree: Tree, leaf: int, rows: NDArray[np.void]) -> Tree:
    """The tree with other rows in one leaf, hashed anew."""
    columns = tree.columns
    start, stop = (int(columns.offsets[n]) for n in (leaf, leaf + 1))
    fresh = np.frombuffer(rows.tobytes(), dtype=np.uint8)
    values = np.concatenate([columns.values[:start], fresh, columns.values[stop:]])
    offsets = columns.offsets.astype(np.int64)
    offsets[leaf + 1 :] += len(fresh) - (stop - start)
    return build(Columns(np.array(columns.keys), offsets.astype(np.uint64), values))


def reseal_with(trace: TraceDir, number: int, event: Mapping[str, Any], key: Key, **how: Any) -> None:
    """Let entry `number` say something else, and `reseal` the trace around it; `how` is `reseal`'s."""
    entries = all_entries(trace)
    entries[number] = encode_event(event)
    reseal(trace, entries, key, **how)


def reseal(
    trace: TraceDir,
    entries: Sequence[bytes],
    key: Key,
    *,
    lie: Callable[[Tree], Tree] = lambda tree: tree,
    skip: int | None = None,
    without: str = "",
) -> None:
    """Rewrite the whole trace around other entries and sign it: every `seal` entry, its index and its note are made
    to fit. `lie` changes the newest index before it is committed to, entry `skip` is in none, and no seal counts the
    entries of the kind `without`."""
    origin, forged = head_of(trace).origin, _Forged()
    (trace.path / plan_of(trace).path).unlink()
    for folder in ("tile", "index"):
        shutil.rmtree(trace.path / folder)
    last_seal = max(n for n, entry in enumerate(entries) if decode_event(entry)["kind"] == "seal")
    for number, entry in enumerate(entries):
        event = decode_event(entry)
        if event["kind"] == "seal":
            event |= forged.fit(number, lie if number == last_seal else lambda tree: tree)
            event["counts"].pop(without, None)
        forged.take(number, event, is_indexed=number != skip)
        if event["kind"] == "seal" or number == len(entries) - 1:
            note = forged.grow(trace, origin, key)
            if event["kind"] == "seal":
                put(trace, f"index/{forged.size}/checkpoint", note)
    assert forged.tree is not None
    write_index(trace.path, last_seal + 1, forged.tree)
    put(trace, "checkpoint", note)
    plan = Plan(forged.size, forged.size, (), forged.stops, (), last_seal + 1, column_digests(forged.tree))
    put(trace, plan.path, format_plan(plan))


class _Forged:
    """A log as far as it is rewritten."""

    def __init__(self) -> None:
        self.size = 0
        self.stops: dict[bytes, int] = {}
        self.tree: Tree | None = None
        self._fresh: list[bytes] = []
        self._table, self._totals = PostingTable(), Totals({}, np.empty(0, np.uint64))

    def fit(self, number: int, lie: Callable[[Tree], Tree]) -> dict[str, Any]:
        """What a `seal` entry of that number says."""
        self.tree = lie(build(Columns(*self._table.columns())))
        said = {"root": self.tree.root, "leaves": len(self.tree), "entries": number}
        return said | {"counts": dict(self._totals.counts), "epoch_steps": self._totals.epoch_steps}

    def take(self, number: int, event: dict[str, Any], *, is_indexed: bool) -> None:
        """Take one entry."""
        self._fresh.append(encode_event(event))
        self._totals.add(event)
        self.stops[event["writer"]] = max(self.stops.get(event["writer"], 0), event["seq"] + 1)
        if is_indexed:
            self._table.add(number, event)

    def grow(self, trace: TraceDir, origin: str, key: Key) -> bytes:
        """Write the tiles of what was taken; the signed note of its head."""
        growth = grow(self.size, trace, self._fresh)
        for path, data in growth.files.items():
            put(trace, path, data)
        self.size, self._fresh = growth.size, []
        return signed_note(TreeHead(origin, growth.size, growth.root), key)


def signed_note(head: TreeHead, key: Key) -> bytes:
    """A head's note under one signature."""
    text = format_tree_head(head)
    return format_note(Note(text, (sign_note(text, head.origin, key),)))
