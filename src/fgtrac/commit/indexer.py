"""Building the index of a full seal: only what is new since the last one is read, expanded and hashed.

In memory where an estimate says that it fits (events/postings.py), else by units of work on disk
(store/index_build.py): the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fgtrac.engine.opening import open_engine
from fgtrac.errors import FormatError
from fgtrac.events.postings import PostingTable, merge, registered_entries
from fgtrac.events.schema import decode_event
from fgtrac.events.totals import Totals
from fgtrac.store import durable
from fgtrac.store.index_build import BuiltIndex, LogPart, Progress, build_large_index
from fgtrac.store.index_files import load_index, write_index
from fgtrac.store.index_register import bundle_bytes
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import Columns, Tree, build
from fgtrac.tlog.merkle import EMPTY_ROOT
from fgtrac.tlog.npy import COLUMNS, column_digests, column_path
from fgtrac.tlog.tiles import read_bundle, read_entries

MEMORY = 2 << 30  # bytes, where nothing else is said
UNFINISHED = "index/unfinished"  # where an index is built that does not fit in memory
LOG_FACTOR = 20  # bytes of memory for a byte of entries: a posting has at least four of these, and takes at most 80
OLD_FACTOR = 4  # and for a byte of the columns that are merged in


@dataclass(frozen=True, slots=True)
class Means:
    """What a seal may use: the engine by name (None: FGTRAC_ENGINE, else `local`), about how many bytes of memory, and
    who hears how far it is."""

    engine: str | None = None
    memory_bytes: int = MEMORY
    progress: Progress | None = None


MEANS = Means()


class Index(Protocol):
    """An index that was built, wherever it is."""

    root: bytes
    leaves: int

    def digests(self) -> dict[str, bytes]:
        """The SHA-256 of each column's file."""

    def put(self, trace: TraceDir, size: int) -> None:
        """Put the columns in place, as those of the index sealed at `size`."""


@dataclass(frozen=True, slots=True, eq=False)
class Sealed:
    """What a `seal` entry says of the entries before it: the index, counts by kind, first step of each epoch."""

    index: Index
    counts: dict[str, int]
    epoch_steps: NDArray[np.uint64]


class _InMemory:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.root, self.leaves = tree.root, len(tree)

    def digests(self) -> dict[str, bytes]:
        return column_digests(self._tree)

    def put(self, trace: TraceDir, size: int) -> None:
        write_index(trace.path, size, self._tree)


class _OnDisk:
    """The files get a second name: until the seal is done, one that is cut short finds them where they were built."""

    def __init__(self, built: BuiltIndex) -> None:
        self._built = built
        self.root, self.leaves = built.root, built.leaves

    def digests(self) -> dict[str, bytes]:
        return self._built.column_digests

    def put(self, trace: TraceDir, size: int) -> None:
        for name in COLUMNS:
            durable.put_also(self._built.folder / f"{name}.npy", trace.path / column_path(size, name))


def build_index(
    trace: TraceDir,
    size: int,
    new: Sequence[bytes],
    index_size: int = 0,
    digests: Mapping[str, bytes] | None = None,
    *,
    stop: int | None = None,
    means: Means | None = None,
    ledger: Path | None = None,
) -> Sealed:
    """The index over the log's `size` entries (with `stop`, over its first ones) and the new ones behind them.

    `index_size` is the newest full seal (0: none) and `digests` the SHA-256 of its columns' files. Where they do not
    match what is on disk, everything is rebuilt from the log: what a full seal signs never rests on a damaged file.
    With `means` and `ledger`, an index that would take more memory is built by units of work.
    """
    previous = _trusted_index(trace, index_size, digests or {}) if index_size else None
    start = index_size if previous is not None else 0
    stop = size if stop is None else stop
    totals = _totals_at(trace, index_size, size) if previous is not None else Totals({}, np.empty(0, np.uint64))
    estimate = _estimate(trace, start, stop, size, new, previous)
    if means is not None and ledger is not None and estimate > means.memory_bytes:
        folder = trace.path / UNFINISHED
        if folder.parent.is_symlink():
            raise FormatError(f"{folder.parent} is a link; a trace has none, so put a folder in its place")
        head = trace.head()
        root = head.root if head is not None else EMPTY_ROOT
        said = b"".join(digests[name] for name in COLUMNS) if digests and start else b""
        log = LogPart(trace, size, root, stop, new, start, said)
        with open_engine(means.engine) as engine:
            built = build_large_index(
                log, engine, folder, ledger, memory_bytes=means.memory_bytes, progress=means.progress
            )
        totals.merge(built.counts, built.epoch_steps)
        return Sealed(_OnDisk(built), totals.counts, totals.epoch_steps)
    tree = _build_in_memory(trace, start, stop, size, new, previous, totals)
    return Sealed(_InMemory(tree), totals.counts, totals.epoch_steps)


def _estimate(trace: TraceDir, start: int, stop: int, size: int, new: Sequence[bytes], previous: Tree | None) -> int:
    """About how many bytes of memory the index takes if it is built there."""
    entries = bundle_bytes(trace, start, stop, size) + sum(map(len, new))
    old = 0 if previous is None else previous.columns.values.nbytes + 130 * len(previous)
    return LOG_FACTOR * entries + OLD_FACTOR * old


def _build_in_memory(
    trace: TraceDir, start: int, stop: int, size: int, new: Sequence[bytes], previous: Tree | None, totals: Totals
) -> Tree:
    table = PostingTable()
    if previous is not None:
        _recall_blocks(table, trace, previous, size)

    for number, entry in enumerate(chain(read_entries(trace, start, stop, size), new), start):
        event = decode_event(entry)
        table.add(number, event)
        totals.add(event)
    columns = table.columns()
    del table  # its memory, before the tree takes as much
    if previous is not None:
        old = previous.columns
        columns = merge((old.keys, old.offsets, old.values), columns)
    return build(Columns(*columns), previous)


def _trusted_index(trace: TraceDir, size: int, digests: Mapping[str, bytes]) -> Tree | None:
    if find_damaged_column(trace, size, digests) is not None:
        return None
    return load_index(trace.mapped, size, b"")


def find_damaged_column(trace: TraceDir, size: int, digests: Mapping[str, bytes]) -> str | None:
    """The first column of an index whose file is gone, is no plain file, or has another SHA-256 than in `digests`."""
    for name in COLUMNS:
        try:
            with trace.plain(column_path(size, name)).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").digest()
        except (OSError, FormatError):
            return name  # gone or unreadable: the log has everything, and the auditor reports the file
        if found != digests.get(name):
            return name
    return None


def _totals_at(trace: TraceDir, index_size: int, size: int) -> Totals:
    entry = read_bundle(trace, (index_size - 1) // 256, size)[(index_size - 1) % 256]
    seal = decode_event(entry)
    totals = Totals(seal["counts"], seal["epoch_steps"])
    totals.add(seal)
    return totals


def _recall_blocks(table: PostingTable, trace: TraceDir, previous: Tree, size: int) -> None:
    """Teach the table the blocks registered under the previous index, read again from their entries."""
    old = previous.columns
    bundle: tuple[int, list[bytes]] = (-1, [])
    for number in registered_entries((old.keys, old.offsets, old.values)).tolist():
        if number // 256 != bundle[0]:
            bundle = number // 256, read_bundle(trace, number // 256, size)
        table.recall(number, decode_event(bundle[1][number % 256]))
