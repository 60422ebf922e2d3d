"""Building the index of a full seal: only what is new since the last one is read, expanded and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.postings import PostingTable, merge, registered_entries
from fgtrac.events.schema import decode_event
from fgtrac.events.totals import Totals
from fgtrac.store.index_files import load_index
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import Columns, Tree, build
from fgtrac.tlog.npy import COLUMNS, column_path
from fgtrac.tlog.tiles import read_bundle, read_entries


@dataclass(frozen=True, slots=True, eq=False)
class Sealed:
    """What a `seal` entry says of the entries before it: the index, counts by kind, first step of each epoch."""

    tree: Tree
    counts: dict[str, int]
    epoch_steps: NDArray[np.uint64]


def build_index(
    trace: TraceDir,
    size: int,
    new: Iterable[bytes],
    index_size: int = 0,
    digests: Mapping[str, bytes] | None = None,
    *,
    stop: int | None = None,
) -> Sealed:
    """The index over the log's `size` entries (with `stop`, over its first ones) and the new ones behind them.

    `index_size` is the newest full seal (0: none) and `digests` the SHA-256 of its columns' files. Where they do not
    match what is on disk, everything is rebuilt from the log: what a full seal signs never rests on a damaged file.
    """
    previous = _trusted_index(trace, index_size, digests or {}) if index_size else None
    start = index_size if previous is not None else 0
    totals = _totals_at(trace, index_size, size) if previous is not None else Totals({}, np.empty(0, np.uint64))
    table = PostingTable()
    if previous is not None:
        _recall_blocks(table, trace, previous, size)
    for number, entry in enumerate(
        _chain(read_entries(trace, start, size if stop is None else stop, size), new), start
    ):
        event = decode_event(entry)
        table.add(number, event)
        totals.add(event)
    columns = table.columns()
    del table  # its memory, before the tree takes as much
    if previous is not None:
        old = previous.columns
        columns = merge((old.keys, old.offsets, old.values), columns)
    return Sealed(build(Columns(*columns), previous), totals.counts, totals.epoch_steps)


def _chain(first: Iterable[bytes], second: Iterable[bytes]) -> Iterable[bytes]:
    yield from first
    yield from second


def _trusted_index(trace: TraceDir, size: int, digests: Mapping[str, bytes]) -> Tree | None:
    if find_damaged_column(trace, size, digests) is not None:
        return None
    return load_index(trace.mapped, size, b"")


def find_damaged_column(trace: TraceDir, size: int, digests: Mapping[str, bytes]) -> str | None:
    """The first column of an index whose file is gone or has another SHA-256 than in `digests`."""
    for name in COLUMNS:
        try:
            with (trace.path / column_path(size, name)).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").digest()
        except OSError:
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
