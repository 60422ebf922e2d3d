"""The units of work of an index that does not fit in memory, which any process can do that sees their folder.

map        a range of entries            -> their postings as a sorted run
contents   a range of content digests    -> their leaves
reduce     a range of samples            -> their leaves, and their values at a place in a file

A unit that is told the SHA-256 of what it gave before looks whether that is still there, and does nothing else then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FgtracError
from fgtrac.events.posting_runs import Registered, RunTable
from fgtrac.events.postings import Bytes2D, merge_contents
from fgtrac.events.schema import decode_event
from fgtrac.events.totals import Totals
from fgtrac.store import durable
from fgtrac.store.index_files import load_index
from fgtrac.store.index_runs import (
    Leaves,
    check_digest,
    forget_checked,
    has_digest,
    hash_contents,
    merge_samples,
    part_of,
    read_leaves,
    read_registered,
    read_run,
    write_leaves,
    write_run,
)
from fgtrac.store.places import trace_of_unit
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import CONTENT, Tree
from fgtrac.tlog.merkle import leaf_hash
from fgtrac.tlog.tiles import decode_bundle, read_entries

ALL_GOOD = -1


@dataclass(frozen=True, slots=True)
class MapUnit:
    """Entries `start` to `stop` of the log of `size` entries in `trace`, or all of the bundle `spool`; `registered` is
    the file that says what is registered, with its SHA-256, `leaves` the hashes that the entries must have, one behind
    another (empty: any), `out` where the run goes, `known` its SHA-256 where it was there before."""

    trace: str
    size: int
    start: int
    stop: int
    spool: str
    registered: str
    registered_sha256: bytes
    leaves: bytes
    out: str
    known: bytes


@dataclass(frozen=True, slots=True)
class Mapped:
    """The run's SHA-256, its postings, counts of entries by kind, first steps of epochs; or the first entry that is
    not as it should be (ALL_GOOD: there is none), and then nothing was written."""

    sha256: bytes
    postings: int
    counts: dict[str, int]
    epoch_steps: NDArray[np.uint64]
    bad: int


def map_entries(unit: MapUnit) -> Mapped:
    """Do a map unit."""
    out = Path(unit.out)
    if unit.known and has_digest(out, unit.known):
        run, said = read_run(out)
        return Mapped(unit.known, len(run.ranks), said["counts"], said["epoch_steps"], ALL_GOOD)
    check_digest(Path(unit.registered), unit.registered_sha256)
    registered = _registered(unit.registered)
    table, totals = RunTable(registered), Totals({}, np.empty(0, np.uint64))
    for number, entry in enumerate(_entries(unit), unit.start):
        try:
            event = decode_event(entry)
            table.add(number, event)
            totals.add(event)
        except FgtracError:
            return _bad(number)  # its words rest on what other units read: the caller finds them again
        at = (number - unit.start) * 32
        expected = [unit.leaves[at : at + 32]] if unit.leaves else []
        if event["kind"] == "samples":
            expected.append(table.leaves[number])
        if expected and set(expected) != {leaf_hash(entry)}:
            return _bad(number)
    first, last = np.searchsorted(registered.places["entry"], [unit.start, unit.stop])
    if missing := set(registered.places["entry"][first:last].tolist()) - table.leaves.keys():
        return _bad(min(missing))
    run = table.run()
    said = {"counts": totals.counts, "epoch_steps": totals.epoch_steps}
    return Mapped(write_run(out, run, said), len(run.ranks), totals.counts, totals.epoch_steps, ALL_GOOD)


def _bad(number: int) -> Mapped:
    return Mapped(b"", 0, {}, np.empty(0, np.uint64), number)


def _entries(unit: MapUnit) -> Iterator[bytes]:
    if unit.spool:
        yield from decode_bundle(Path(unit.spool).read_bytes(), unit.stop - unit.start)
    else:
        yield from read_entries(_trace(unit.trace), unit.start, unit.stop, unit.size)


@lru_cache(maxsize=1)
def _registered(path: str) -> Registered:
    return read_registered(Path(path))


@lru_cache(maxsize=1)
def _trace(path: str) -> TraceDir:
    return trace_of_unit(path)


@lru_cache(maxsize=1)
def _previous(trace: str, size: int) -> Tree | None:
    return load_index(_trace(trace).mapped, size, b"") if size else None


def forget() -> None:
    """Let go of the files that units of this process keep mapped, and of the connections of a trace far away."""
    _trace.cache_clear()
    _registered.cache_clear()
    _previous.cache_clear()
    forget_checked()


@dataclass(frozen=True, slots=True)
class ContentUnit:
    """The contents from `first` up to `stop` (empty: to the end), of the sorted runs of pairs in the file `pairs`, each
    (its first, its length), with the file's SHA-256, and of the index sealed at `index_size` of `trace` (0: none)."""

    pairs: str
    pairs_sha256: bytes
    runs: tuple[tuple[int, int], ...]
    first: bytes
    stop: bytes
    trace: str
    index_size: int
    out: str
    known: bytes


def merge_contents_of(unit: ContentUnit) -> bytes:
    """Do a content unit; the SHA-256 of the file with its leaves."""
    out = Path(unit.out)
    if unit.known and has_digest(out, unit.known):
        return unit.known
    check_digest(Path(unit.pairs), unit.pairs_sha256)
    found = []
    pairs = pairs_in(Path(unit.pairs))
    for first, length in unit.runs:
        run = pairs[first : first + length]
        start = lower(run, unit.first)
        found.append(np.array(run[start : lower(run, unit.stop) if unit.stop else len(run)]))
    previous, old = _previous(unit.trace, unit.index_size), None
    if previous is not None:
        old, _ = part_of(previous, CONTENT, unit.first, before(unit.stop))
        start, stop = int(old.columns.offsets[0]), int(old.columns.offsets[-1])
        counts = np.diff(old.columns.offsets).astype(np.int64) // 32
        keys = np.repeat(old.columns.keys[:, 1:], counts, axis=0)
        found.append(np.concatenate([keys, np.array(old.columns.values[start:stop]).reshape(-1, 32)], axis=1))
    keys, counts, holders = merge_contents([(p[:, :32], p[:, 32:]) for p in found])
    return write_leaves(out, hash_contents(keys, counts, holders, old))


def pairs_in(path: Path) -> Bytes2D:
    """Pairs of content and id (n, 64), memory-mapped."""
    if not path.stat().st_size:
        return np.empty((0, 64), np.uint8)
    return np.memmap(path, np.uint8, "r").reshape(-1, 64)


def lower(rows: Bytes2D, wanted: bytes) -> int:
    """How many of the ascending rows begin below `wanted`."""
    start, stop = 0, len(rows)
    while start < stop:
        middle = (start + stop) // 2
        start, stop = (middle + 1, stop) if rows[middle, : len(wanted)].tobytes() < wanted else (start, middle)
    return start


def before(key: bytes) -> bytes:
    """The greatest 32-byte key below `key`; the greatest of all for none."""
    return (int.from_bytes(key, "big") - 1).to_bytes(32, "big") if key else b"\xff" * 32


@dataclass(frozen=True, slots=True)
class ReduceUnit:
    """The samples of rank `first` to `stop`, whose ids are in the column of keys `keys` and have this SHA-256 there:
    from the `runs` (files beside `out`, each with its SHA-256, in the order of the log) and the index sealed at
    `index_size` of `trace` (0: none). The values go into the file `values` from `offset` on, in pieces of `at_once`
    postings; the leaves to `out`."""

    runs: tuple[tuple[str, bytes], ...]
    first: int
    stop: int
    keys: str
    keys_sha256: bytes
    trace: str
    index_size: int
    values: str
    offset: int
    at_once: int
    out: str
    known: bytes


def reduce_samples(unit: ReduceUnit) -> bytes:
    """Do a reduce unit; the SHA-256 of the file with its leaves."""
    out, values = Path(unit.out), Path(unit.values)
    if unit.known and has_digest(out, unit.known) and _has_values(values, unit.offset, read_leaves(out)):
        return unit.known
    runs = [out.parent / name for name, _ in unit.runs]
    for path, (_, digest) in zip(runs, unit.runs, strict=True):
        check_digest(path, digest)
    keys = np.fromfile(unit.keys, np.uint8, (unit.stop - unit.first) * 33, offset=128 + 33 * unit.first)
    if hashlib.sha256(keys.tobytes()).digest() != unit.keys_sha256:
        raise OSError(f"{Path(unit.keys).name} changed while the index was put together; begin again")
    at = unit.offset

    def write(piece: memoryview) -> None:
        nonlocal at
        durable.write_at(values, at, [piece])
        at += len(piece)

    ids = np.ascontiguousarray(keys.reshape(-1, 33)[:, 1:])
    del keys
    previous = _previous(unit.trace, unit.index_size)
    return write_leaves(out, merge_samples(runs, ids, unit.first, write, previous, unit.at_once))


def _has_values(path: Path, offset: int, leaves: Leaves) -> bool:
    """Whether the values that the leaves have the digests of are in the file."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            for size, digest in zip(leaves.sizes.tolist(), leaves.digests, strict=True):
                found = hashlib.sha256()
                while size and (piece := file.read(min(size, 1 << 22))):
                    found.update(piece)
                    size -= len(piece)
                if size or found.digest() != digest.tobytes():
                    return False
    except FileNotFoundError:
        return False
    return True
