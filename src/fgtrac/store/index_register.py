"""The first stage of an index that does not fit in memory: who is registered, each sample's rank, contents sorted."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FgtracError, FormatError
from fgtrac.events.byte_order import order_of
from fgtrac.events.posting_runs import Event, Registrations
from fgtrac.events.postings import Bytes2D, rank_ids
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.store.index_runs import typed_keys, write_registered
from fgtrac.store.index_units import lower
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import KEY_BYTES, SAMPLE
from fgtrac.tlog.merkle import leaf_hash
from fgtrac.tlog.tiles import ENTRIES, WIDTH, read_bundle, tile_path

NPY_HEADER_BYTES = 128  # of every column's file
AT_ONCE = 1 << 20  # ids that are ranked together
PAIRS = 1 << 18  # of content and id that are sorted together
SAMPLED = 64  # ids looked at in each such part, to cut at even distances
_IDS_FIRST = b"\x63ids"  # a `samples` entry's first field, behind the head of its map


@dataclass(frozen=True, slots=True)
class FirstReading:
    """What the first stage gives: how many samples there are, the sorted runs (first, length) of pairs, the first entry
    that is not as it should be with what it says (None: there is none), and what is wrong of a part that came late; and
    the SHA-256 of its files, of the column of keys without its header."""

    samples: int
    pair_runs: tuple[tuple[int, int], ...]
    bad: tuple[int, FgtracError] | None
    late: FgtracError | None
    registered_sha256: bytes
    keys_sha256: bytes
    pairs_sha256: bytes


class IdFile:
    """Ids in a file, one behind another (`IdRows`). Mapped in few pieces, however many blocks there are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mapped: Bytes2D = np.empty((0, 32), np.uint8)
        self.length = 0
        durable.write_at(path, 0, [], cut=True)

    def append(self, ids: Bytes2D) -> int:
        """As `IdRows.append`."""
        first = self.length
        durable.write_at(self._path, first * 32, [memoryview(np.ascontiguousarray(ids).reshape(-1))])  # type: ignore[arg-type]
        self.length += len(ids)
        return first

    def rows(self, first: int, length: int) -> Bytes2D:
        """As `IdRows.rows`."""
        if first + length > len(self._mapped):
            room = 1 << max(first + length, 1 << 12).bit_length()
            durable.write_at(self._path, room * 32, [], cut=True)  # a hole: it takes no room on the disk
            self._mapped = np.memmap(self._path, np.uint8, "r", 0, (room, 32))
        return self._mapped[first : first + length]


def find_registrations(trace: TraceDir, size: int) -> list[int]:
    """The entries of a log that may be `samples` entries: those whose first field is called `ids`. Of each entry a few
    bytes are read. FormatError for a bundle that is cut."""
    found = []
    for number in range(-(-size // WIDTH)):
        width = min(WIDTH, size - number * WIDTH)
        path = bundle_path(trace, number, width)
        with path.open("rb", buffering=0) as file:
            at, end = 0, os.fstat(file.fileno()).st_size
            for place in range(width):
                head = os.pread(file.fileno(), 7, at)
                at += 2 + int.from_bytes(head[:2], "big")
                if at > end:
                    raise FormatError(f"{path.relative_to(trace.path)}: entry {place} of a bundle is cut")
                if head[3:] == _IDS_FIRST:
                    found.append(number * WIDTH + place)
    return found


def bundle_path(trace: TraceDir, number: int, width: int) -> Path:
    """Where a bundle lies: the full one, where the partial one has gone."""
    try:
        return trace.plain(tile_path(ENTRIES, number, width))
    except FileNotFoundError:
        return trace.plain(tile_path(ENTRIES, number, WIDTH))


def bundle_size(trace: TraceDir, number: int, width: int) -> int:
    """How many bytes a bundle has: the full one, where the partial one has gone."""
    try:
        opened = trace.opened(tile_path(ENTRIES, number, width))
    except FileNotFoundError:
        opened = trace.opened(tile_path(ENTRIES, number, WIDTH))
    with opened:
        return opened.size


def bundle_bytes(trace: TraceDir, start: int, stop: int, size: int) -> int:
    """How many bytes the bundles with the entries `start` to `stop` of a log of `size` entries have. FileNotFoundError,
    FormatError where one is missing or no plain file."""
    numbers = range(start // WIDTH, -(-stop // WIDTH))
    return sum(bundle_size(trace, n, min(WIDTH, size - n * WIDTH)) for n in numbers)


def read_registrations(
    trace: TraceDir, size: int, numbers: Sequence[int], new: Sequence[bytes], start: int, folder: Path
) -> FirstReading:
    """Read the `samples` entries among `numbers` of a log of `size` entries and the `new` ones behind it, and write
    into `folder` what the other stages need: `registered`, the samples' part of `keys.npy`, and `pairs`, which are
    those of the entries from `start` on only.

    Stops at the first entry that is not as it should be.
    """
    ids = IdFile(folder / "ids")
    table, pairs = Registrations(ids), _Pairs(folder / "pairs")
    read = _Entries(trace, size, new)
    bad: tuple[int, FgtracError] | None = None
    late: FgtracError | None = None
    for number in [*numbers, *(size + n for n, entry in enumerate(new) if entry[1:5] == _IDS_FIRST)]:
        try:
            entry = read.entry(number)
            event = decode_event(entry)
            if event["kind"] == "samples":
                table.register(number, event, leaf_hash(entry))
        except FgtracError as error:
            bad = number, error
            break
        if event["kind"] == "samples" and "contents" in event and number >= start:
            pairs.add(event)
    if bad is None:
        try:
            table.finish(lambda number: decode_event(read.entry(number)))
        except FgtracError as error:
            late = error
    pairs.sort()
    keys = _Keys(folder / "keys.npy")
    ranks, samples = _rank(ids, table.groups, keys.write)
    registered = write_registered(folder / "registered", table.registered(ranks))
    digests = registered, keys.sha256.digest(), pairs.sha256.digest()
    return FirstReading(samples, tuple(pairs.runs), bad, late, *digests)


class _Entries:
    """Entries by number, a bundle kept at a time."""

    def __init__(self, trace: TraceDir, size: int, new: Sequence[bytes]) -> None:
        self._trace, self._size, self._new = trace, size, new
        self._bundle: tuple[int, list[bytes]] = -1, []

    def entry(self, number: int) -> bytes:
        if number >= self._size:
            return self._new[number - self._size]
        if number // WIDTH != self._bundle[0]:
            self._bundle = number // WIDTH, read_bundle(self._trace, number // WIDTH, self._size)
        return self._bundle[1][number % WIDTH]


class _Pairs:
    """Pairs of content and id, in sorted runs in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[Bytes2D] = []
        self._count, self._written = 0, 0
        self.runs: list[tuple[int, int]] = []
        self.sha256 = hashlib.sha256()
        durable.write_at(path, 0, [], cut=True)

    def add(self, event: Event) -> None:
        both = [np.frombuffer(event[name], np.uint8).reshape(-1, 32) for name in ("contents", "ids")]
        self._waiting.append(np.concatenate(both, axis=1))
        self._count += len(both[0])
        if self._count >= PAIRS:
            self.sort()

    def sort(self) -> None:
        if self._count:
            joined = np.concatenate(self._waiting)
            joined = joined[order_of(joined)[0]]
            written = joined.tobytes()
            self.sha256.update(written)
            durable.write_at(self._path, self._written * 64, [written])
            self.runs.append((self._written, len(joined)))
            self._written += len(joined)
            self._waiting, self._count = [], 0


class _Keys:
    """The samples' part of the column of keys, written in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sha256 = hashlib.sha256()
        durable.write_at(path, 0, [bytes(NPY_HEADER_BYTES)], cut=True)

    def write(self, first: int, ids: Bytes2D) -> None:
        keys = memoryview(typed_keys(SAMPLE, ids).reshape(-1))  # type: ignore[arg-type]
        self.sha256.update(keys)
        durable.write_at(self._path, NPY_HEADER_BYTES + first * KEY_BYTES, [keys])


def _rank(
    ids: IdFile, groups: Sequence[tuple[int, int]], write: Callable[[int, Bytes2D], None]
) -> tuple[NDArray[np.uint32], int]:
    """Each id's place among all of them in ascending order, each once, and how many those are. They are ranked a range
    of ids at a time: 4 bytes an id is all that is held for all of them."""
    rows, ranks, count = ids.rows(0, ids.length), np.empty(ids.length, dtype=np.uint32), 0
    done = [0] * len(groups)
    for border in cut_evenly([rows], AT_ONCE):
        parts, places = [], []
        for which, (first, length) in enumerate(groups):
            group = rows[first + done[which] : first + length]
            size = lower(group, border) if border else len(group)
            if size:
                parts.append(np.array(group[:size]))
                places.append(first + done[which])
                done[which] += size
        ascending, within = rank_ids(parts)
        for place, found in zip(places, within, strict=True):
            ranks[place : place + len(found)] = found + np.uint32(count)
        write(count, ascending)
        count += len(ascending)
    return ranks, count


def cut_evenly(groups: Sequence[Bytes2D], at_once: int, width: int = 32) -> Iterator[bytes]:
    """Keys, ascending, that cut rows into ranges of about so many, whatever their first bytes are: each range's end,
    the last one's empty. Nothing where there are no rows. The same rows are always cut at the same keys.

    Of each so many rows one is looked at, anywhere among them: rows that ascend in blocks of one length, each time at
    the same place of a block, would say nothing."""
    step, chance = max(at_once // SAMPLED, 1), random.Random(0)  # `random()` gives the same numbers for ever
    sampled = []
    for rows in groups:
        places = [start + int(chance.random() * step) for start in range(0, len(rows), step)]
        sampled += [row.tobytes() for row in rows[[place for place in places if place < len(rows)], :width]]
    sampled.sort()
    yield from sorted(set(sampled[SAMPLED::SAMPLED]))
    if any(len(rows) for rows in groups):
        yield b""
