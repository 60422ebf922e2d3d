"""Building the index of a full seal: only what is new since the last one is read, expanded and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.events.postings import PostingTable, merge, registered_entries
from fgtrac.events.schema import NO_STEP, STATUS, decode_event
from fgtrac.store.index_files import COLUMNS, column_path, load_index
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import Columns, Tree, build
from fgtrac.tlog.tiles import read_bundle, read_entries


@dataclass(frozen=True, slots=True, eq=False)
class Sealed:
    """What a `seal` entry says of the entries before it: the index, counts by kind, first step of each epoch."""

    tree: Tree
    counts: dict[str, int]
    epoch_steps: NDArray[np.uint64]


class Totals:
    """Counts by kind and the smallest applied step of each epoch, over entries as they come."""

    def __init__(self, counts: Mapping[str, int], epoch_steps: NDArray[np.uint64]) -> None:
        self.counts = dict(counts)
        self._steps = dict(enumerate(epoch_steps.tolist()))

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one entry."""
        self.counts[event["kind"]] = self.counts.get(event["kind"], 0) + 1
        if event["kind"] == "use":
            applied = event["status"] == STATUS["applied"]
            epochs, steps = event["epoch"], event["step"]
            for epoch in np.unique(epochs).tolist():
                mine = steps[(epochs == epoch) & applied]
                first = int(mine.min()) if len(mine) else NO_STEP
                self._steps[epoch] = min(self._steps.get(epoch, NO_STEP), first)

    @property
    def epoch_steps(self) -> NDArray[np.uint64]:
        """Element e is the first applied step of epoch e, 2^64-1 where there is none."""
        length = max(self._steps) + 1 if self._steps else 0
        if length > MAX_EPOCHS:
            raise FormatError(
                f"epoch {length - 1} is named; a seal lists the first steps of at most {MAX_EPOCHS} epochs"
            )
        return np.array([self._steps.get(e, NO_STEP) for e in range(length)], dtype=np.uint64)


MAX_EPOCHS = 4096


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
