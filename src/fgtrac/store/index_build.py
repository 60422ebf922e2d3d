"""An index that does not fit in memory: built from a log by units of work, byte for byte as in memory.

    register   this process   the `samples` entries: blocks, ranks, contents   (store/index_register.py)
    map        units          ranges of entries -> sorted runs of postings     (store/index_units.py)
    contents   units          ranges of contents -> leaves
    reduce     units          ranges of samples -> values in place, leaves
    join       this process   offsets, digests, upper nodes, the columns' SHA-256, as the units finish

Seals and the auditor both build it so; the one keeps the columns, the other only their digests.

Units are named by their ranges, and cut by what a worker may hold: a finished one stays, however the rest is cut when
the work goes on with other workers or another memory.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.postings import ROW, PostingTable
from fgtrac.events.schema import decode_event
from fgtrac.events.totals import Totals
from fgtrac.store import durable
from fgtrac.store.index_files import load_index
from fgtrac.store.index_join import Join
from fgtrac.store.index_register import (
    NPY_HEADER_BYTES,
    PAIRS,
    FirstReading,
    bundle_bytes,
    bundle_size,
    cut_evenly,
    find_registrations,
    read_registrations,
)
from fgtrac.store.index_runs import check_digest, count_postings, has_digest, part_of, read_leaves
from fgtrac.store.index_units import (
    ALL_GOOD,
    ContentUnit,
    MapUnit,
    ReduceUnit,
    forget,
    map_entries,
    merge_contents_of,
    pairs_in,
    reduce_samples,
)
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.unit_ledger import UnitLedger
from fgtrac.tlog.index import CONTENT, KEY_BYTES, SAMPLE, Tree
from fgtrac.tlog.tiles import WIDTH, encode_bundle, read_entries

WORK = 3  # number of what units are called and what their files hold: another one's are not taken up
BYTES_A_POSTING = 96  # that a worker holds at most for each posting of its unit
FEWEST, MOST = 1 << 14, 1 << 22  # postings of a unit
Progress = Callable[[str, int, int], None]

Runs = Sequence[tuple[Path, bytes]]  # files and their SHA-256

U = TypeVar("U")
R = TypeVar("R")
One = TypeVar("One", MapUnit, ContentUnit, ReduceUnit)

_RANGE = re.compile("([0-9]{1,20})-([0-9]{1,20})")


class Workers(Protocol):
    """What does the units (`fgtrac.engine`), in any order."""

    @property
    def workers(self) -> int: ...

    def results(
        self,
        work: Callable[[U], R],
        units: Sequence[U],
        *,
        what: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[int, R]]: ...

    def check_shared(self, folder: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class LogPart:
    """What an index is built over: the first `stop` entries of the log of `size` entries of `trace` (units open it by
    its path), whose root is `root`, and the `new` entries behind them (with them, `stop` is `size`).

    Only the entries from `start` on are read where the index sealed at `start` is given: 0 for none, else that index
    must be whole (the caller checks its files' digests, which `start_digests` are). Where the `leaves` are given, the
    leaf hashes of at least the first `stop` entries end to end, an entry that has another one is refused."""

    trace: TraceDir
    size: int
    root: bytes
    stop: int
    new: Sequence[bytes] = ()
    start: int = 0
    start_digests: bytes = b""
    leaves: bytes | bytearray = b""


@dataclass(frozen=True, slots=True, eq=False)
class BuiltIndex:
    """An index over a log: its root and number of leaves, counts of the entries that were read by kind and their first
    steps of epochs (of those from `start` on), and the SHA-256 and the size in bytes of each column's file. `folder`
    holds these files (NAME.npy), on disk, where they were to be kept."""

    root: bytes
    leaves: int
    counts: dict[str, int]
    epoch_steps: NDArray[np.uint64]
    column_digests: dict[str, bytes]
    column_bytes: dict[str, int]
    folder: Path


def build_large_index(
    log: LogPart,
    workers: Workers,
    folder: Path,
    ledger: Path,
    *,
    memory_bytes: int,
    keep: bool = True,
    numbers: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> BuiltIndex:
    """Build the index of a log in about `memory_bytes` for all workers together, with files in `folder`, which all
    workers see and nobody else uses (it becomes this user's alone, and no link in it is followed); and with `ledger`, a
    file where nobody else writes. Called again after it was cut short, it goes on from the units that were finished.

    Without `keep` the values are removed as soon as they are hashed (12 bytes a posting is what the disk holds at a
    time), and the other columns are for the caller to remove. `numbers` are the entries that may be `samples` entries,
    where the caller knows; `progress` hears the stage, and how many of how many units of it are done.
    The caller removes folder and ledger when it has what it wants.

    ProofError or FormatError, of the first entry that is not as it should be, in the words of `PostingTable`.
    """
    build = _Build(log, workers, folder, UnitLedger(ledger), memory_bytes, keep, progress or (lambda *_: None))
    try:
        return build.run(numbers)
    finally:
        forget()
        build.ledger.close()


class _Build:
    """One build. Its folder has its name, which all that it rests on decides."""

    def __init__(
        self, log: LogPart, workers: Workers, folder: Path, ledger: UnitLedger, memory: int, keep: bool, told: Progress
    ) -> None:
        self.log, self.workers, self.ledger, self.keep, self.told = log, workers, ledger, keep, told
        self.trace = log.trace
        share = memory // (max(workers.workers, 4) + 1) // BYTES_A_POSTING
        self.at_once = min(max(1 << max(share.bit_length() - 1, 0), FEWEST), MOST)
        said = hashlib.sha256(f"{WORK} {log.size} {log.stop} {log.start} {keep}\n".encode())
        said.update(log.root + log.start_digests)
        for entry in log.new:
            said.update(len(entry).to_bytes(4, "big") + entry)
        self.folder = folder / said.hexdigest()[:32]
        durable.make_own_folder(folder)
        strangers = [other for other in folder.iterdir() if other != self.folder]
        durable.make_own_folder(self.folder)
        strangers += [other for other in self.folder.iterdir() if other.is_symlink() or not other.is_file()]
        for other in sorted(strangers):
            durable.remove_folder(other) if other.is_dir() and not other.is_symlink() else durable.remove(other)
        self.previous: Tree | None = load_index(self.trace.mapped, log.start, b"") if log.start else None

    def run(self, numbers: Sequence[int] | None) -> BuiltIndex:
        """All stages."""
        log = self.log
        self.workers.check_shared(self.folder)
        self.told("samples", 0, 1)
        if numbers is None:
            numbers = find_registrations(self.trace, log.size)
        numbers = [n for n in numbers if n < log.stop]
        first = read_registrations(self.trace, log.size, numbers, log.new, log.start, self.folder)
        self.told("samples", 1, 1)
        runs, totals = self._map(first, numbers)
        contents = sorted(self._do("contents", merge_contents_of, self._content_units(first), lambda digest: digest))
        content_files = [self.folder / f"contents-{n}" for n, _ in contents]
        for path, (_, digest) in zip(content_files, contents, strict=True):
            check_digest(path, digest)
        units, postings = self._reduce_units(runs, first)
        join = Join(self.folder, first.samples, postings * ROW.itemsize, content_files)
        waiting: dict[int, bytes] = {}
        for number, digest in self._do("reduce", reduce_samples, units, lambda digest: digest):
            waiting[number] = digest
            while join.taken in waiting:
                unit = units[join.taken]
                check_digest(Path(unit.out), waiting.pop(join.taken))
                join.take(read_leaves(Path(unit.out)), Path(unit.values), unit.offset)
                if not self.keep:
                    durable.remove(Path(unit.values))
        root, digests = join.finish(keep=self.keep)
        return BuiltIndex(root, join.leaves, totals.counts, totals.epoch_steps, digests, join.column_bytes, self.folder)

    def _do(
        self, what: str, work: Callable[[One], R], units: Sequence[One], digest_of: Callable[[R], bytes]
    ) -> Iterator[tuple[int, R]]:
        """Results as they come; each finished unit is in the ledger before."""
        self.told(what, 0, len(units))

        def told(done: int, total: int) -> None:
            self.told(what, done, total)

        for number, result in self.workers.results(work, units, what=f"index: {what}", progress=told):
            if digest := digest_of(result):
                self.ledger.add(f"{self.folder.name}/{Path(units[number].out).name}", digest)
            yield number, result

    def _known(self, name: str) -> dict[str, Any]:
        return {"out": str(self.folder / name), "known": self.ledger.known(f"{self.folder.name}/{name}")}

    def _finished(self, what: str) -> list[tuple[int, int]]:
        """The ranges of the units of a stage that are finished, ascending; some may lie in others."""
        found = (_RANGE.fullmatch(name) for name in self.ledger.names(f"{self.folder.name}/{what}-"))
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    # -- map ------------------------------------------------------------------------------------------------------

    def _map(self, first: FirstReading, numbers: Sequence[int]) -> tuple[Runs, Totals]:
        units, runs = list(self._map_units(first)), dict[int, bytes]()
        totals = Totals({}, np.empty(0, np.uint64))
        bad, open_units = first.bad[0] if first.bad is not None else -1, set(range(len(units)))
        for number, mapped in self._do("map", map_entries, units, lambda m: m.sha256):
            open_units.discard(number)
            runs[number] = mapped.sha256
            totals.merge(mapped.counts, mapped.epoch_steps)
            if mapped.bad != ALL_GOOD:
                bad = mapped.bad if bad < 0 else min(bad, mapped.bad)
            if bad >= 0 and all(units[n].start > bad for n in open_units):
                break
        if bad >= 0:
            self._explain(bad, numbers)
        if first.late is not None:
            raise first.late
        return [(Path(unit.out), runs[number]) for number, unit in enumerate(units)], totals

    def _map_units(self, first_reading: FirstReading) -> Iterator[MapUnit]:
        """Whole bundles, of about as many postings as are held at once: none has less than four bytes in an entry. And
        what is finished."""
        log, finished = self.log, dict(self._finished("map"))  # of those with the same start, the longest
        bad, sha256 = first_reading.bad, first_reading.registered_sha256
        stop = log.stop if bad is None else min(bad[0], log.stop)
        start, size = log.start, 0
        at = start
        while at < stop:
            done = finished.get(at, at)
            if at < done <= stop and self._is_good(at, done):
                if at > start:
                    yield self._map_unit(start, at, sha256)
                yield self._map_unit(at, done, sha256)
                start, at, size = done, done, 0
                continue
            after = min((at // WIDTH + 1) * WIDTH, stop)
            here = bundle_size(self.trace, at // WIDTH, min(WIDTH, log.size - at // WIDTH * WIDTH))
            if size and size + here > 4 * self.at_once:
                yield self._map_unit(start, at, sha256)
                start, size = at, 0
            at, size = after, size + here
        if at > start:
            yield self._map_unit(start, at, sha256)
        for first in range(0, len(log.new), WIDTH):
            path, entries = self.folder / f"new-{first}", log.new[first : first + WIDTH]
            durable.write_file(path, encode_bundle(entries), sync=False)
            yield self._map_unit(log.size + first, log.size + first + len(entries), sha256, str(path))

    def _is_good(self, start: int, stop: int) -> bool:
        """Whether a finished unit can be taken: larger than one of now, only where it need not be done again."""
        if bundle_bytes(self.trace, start, stop, self.log.size) <= 4 * self.at_once:
            return True
        known = self._known(f"map-{start}-{stop}")
        return has_digest(Path(known["out"]), known["known"])

    def _map_unit(self, start: int, stop: int, sha256: bytes, spool: str = "") -> MapUnit:
        registered, leaves = str(self.folder / "registered"), bytes(self.log.leaves[start * 32 : stop * 32])
        return MapUnit(
            str(self.trace.path), self.log.size, start, stop, spool, registered, sha256, leaves,
            **self._known(f"map-{start}-{stop}"),
        )  # fmt: skip

    def _explain(self, number: int, numbers: Sequence[int]) -> None:
        """Raise what `PostingTable` says of an entry: with the registrations before it of the blocks that it names."""

        def event_at(wanted: int) -> dict[str, Any]:
            if wanted >= self.log.size:
                return decode_event(self.log.new[wanted - self.log.size])
            return decode_event(next(read_entries(self.trace, wanted, wanted + 1, self.log.size)))

        event, table = event_at(number), PostingTable()
        named = {event[name] for name in ("block", "child_block") if name in event}
        new = [self.log.size + n for n in range(len(self.log.new))]
        for before in (n for n in [*numbers, *new] if n < number):
            earlier = event_at(before)
            if earlier["kind"] == "samples" and earlier["block"] in named:
                table.recall(before, earlier)
        table.add(number, event)
        raise ProofError(f"entry {number} changed while it was read; nobody may write to a log that is read")

    # -- contents and reduce ----------------------------------------------------------------------------------------

    def _content_units(self, first: FirstReading) -> list[ContentUnit]:
        pairs, start = pairs_in(self.folder / "pairs"), b"\0" * 32
        groups = [pairs[at : at + length] for at, length in first.pair_runs]
        if self.previous is not None:
            groups.append(part_of(self.previous, CONTENT, start, b"\xff" * 32)[0].columns.keys[:, 1:])
        units = []
        for number, border in enumerate(cut_evenly(groups, PAIRS)):
            where = (str(self.trace.path), self.log.start)
            unit = ContentUnit(
                str(self.folder / "pairs"),
                first.pairs_sha256,
                first.pair_runs,
                start,
                border,
                *where,
                **self._known(f"contents-{number}"),
            )
            units.append(unit)
            start = border
        return units

    def _reduce_units(self, runs: Runs, first: FirstReading) -> tuple[list[ReduceUnit], int]:
        """Ranges of samples with at most as many postings as are held at once, or of one sample, and what is finished;
        and all postings."""
        finished = self._finished("reduce")
        whole = set(finished)
        units, before, samples, paths = list[ReduceUnit](), 0, first.samples, [path for path, _ in runs]
        named, all_keys = tuple((path.name, digest) for path, digest in runs), hashlib.sha256()
        keys = self.folder / "keys.npy"
        waiting = [(0, samples)] if samples else []
        while waiting:
            start, stop = waiting.pop()
            count = count_postings(paths, start, stop) + self._known_postings(keys, start, stop)
            is_more = count > self.at_once or _has_smaller(finished, start, stop)
            if is_more and stop - start > 1 and (start, stop) not in whole:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]
                continue
            values, offset = self.folder / "values.npy", NPY_HEADER_BYTES + before * ROW.itemsize
            if not self.keep:
                values, offset = self.folder / f"values-{start}-{stop}", 0
            unit = ReduceUnit(
                named, start, stop, str(keys), _hash_keys(keys, start, stop, all_keys), str(self.trace.path),
                self.log.start, str(values), offset, self.at_once, **self._known(f"reduce-{start}-{stop}"),
            )  # fmt: skip
            units.append(unit)
            before += count
        if all_keys.digest() != first.keys_sha256:
            raise OSError("keys.npy changed while the index was put together; begin again")
        return units, before

    def _known_postings(self, keys: Path, start: int, stop: int) -> int:
        """How many rows of these samples the previous index has."""
        if self.previous is None:
            return 0
        at = [NPY_HEADER_BYTES + KEY_BYTES * n + 1 for n in (start, stop - 1)]
        with keys.open("rb") as file:
            first, last = ((file.seek(place), file.read(32))[1] for place in at)
        offsets = part_of(self.previous, SAMPLE, first, last)[0].columns.offsets
        return int(offsets[-1] - offsets[0]) // ROW.itemsize


def _has_smaller(ranges: Sequence[tuple[int, int]], start: int, stop: int) -> bool:
    """Whether among ascending ranges there is a smaller one in this."""
    for at in range(bisect_left(ranges, (start, 0)), len(ranges)):
        if ranges[at][0] >= stop:
            break
        if ranges[at][1] <= stop and ranges[at] != (start, stop):
            return True
    return False


def _hash_keys(path: Path, start: int, stop: int, whole: Any) -> bytes:
    """The SHA-256 of the keys of rank `start` to `stop` in the column's file; `whole` is told of them too."""
    found, left = hashlib.sha256(), (stop - start) * KEY_BYTES
    with path.open("rb") as file:
        file.seek(NPY_HEADER_BYTES + start * KEY_BYTES)
        while left and (piece := file.read(min(left, 1 << 22))):
            found.update(piece)
            whole.update(piece)
            left -= len(piece)
    return found.digest()
