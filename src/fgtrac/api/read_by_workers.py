"""Going over a trace's log with an engine's workers, in memory that does not grow with the uses: what `verify` does.

Each worker reads its ranges of the log from the trace's folder. What is wrong with a range is not told by a worker: it
is read again here, so that words and order are those of one process. Workers of other machines may have another copy at
the same path: what is hashed is then what this process reads, and all else must have those hashes.

An index that does not fit in memory is rebuilt through files in a scratch folder (`fgtrac.store.index_build`), and only
its digests are kept. A trace far away is read by this process, and its index rebuilt by workers of this machine, which
fetch their ranges of the log themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from fgtrac.api.scratch import scratch_folder
from fgtrac.engine.alone import Alone
from fgtrac.engine.units import Engine
from fgtrac.errors import EngineError, FgtracError
from fgtrac.store.index_build import BuiltIndex, LogPart, build_large_index
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import HASH_BYTES
from fgtrac.tlog.npy import COLUMNS
from fgtrac.tlog.tiles import WIDTH
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.log_reader import Column, Indexed, InProcess, Rebuilt
from fgtrac.verify.reading import Range, Told, bundle_tile, hash_range, tell_range

Progress = Callable[[int, int], None]
MEMORY = 2 << 30  # bytes, where nobody says how many
FEW_BYTES = 16 << 20  # that are read sooner than workers are started
AT_ONCE = 4  # ranges a worker, between two of which the results are put in order
POSTING_BYTES = 64  # that an index in memory takes for each
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RangeUnit:
    """Bundles `first` up to `stop` of the log of `size` entries in the folder `trace`."""

    trace: str
    first: int
    stop: int
    size: int


def hash_unit(unit: RangeUnit) -> bytes | None:
    """The leaf hashes of a range; None where something is wrong there."""
    try:
        return b"".join(hash_range(TraceDir(Path(unit.trace)), Range(unit.first, unit.stop, unit.size)))
    except (FgtracError, OSError, MemoryError):
        return None


def tell_unit(unit: RangeUnit) -> list[Told] | None:
    """What the entries of a range say; None where something is wrong there."""
    try:
        return list(tell_range(TraceDir(Path(unit.trace)), Range(unit.first, unit.stop, unit.size)))
    except (FgtracError, OSError, MemoryError):
        return None


@dataclass(frozen=True, slots=True)
class ByWorkers:
    """A `LogReader`. `files` are those of the trace as this process reads them, `trace` the folder, in which workers
    read; about `memory_bytes` are for all workers together; `scratch` holds an index (default: the user's cache)."""

    files: TraceFiles
    trace: TraceDir
    engine: Engine
    memory_bytes: int = MEMORY
    scratch: Path | None = None
    progress: Progress | None = None

    def hash(self, ranges: Iterable[Range]) -> Iterator[bytes]:
        """As `LogReader.hash`."""
        if not self._see_the_same:
            yield from InProcess(self.files).hash(ranges)
            return
        for one, found in self._in_order(hash_unit, ranges, "hashing the log"):
            if found is None:
                yield from hash_range(self.files, one)
            else:
                yield found

    def tell(self, ranges: Iterable[Range], leaves: bytes | bytearray) -> Iterator[Told]:
        """As `LogReader.tell`."""
        for one, found in self._in_order(tell_unit, ranges, "reading the log"):
            expected = leaves[one.first * WIDTH * HASH_BYTES : one.stop * WIDTH * HASH_BYTES]
            is_this = found is not None and b"".join(told.leaf for told in found) == expected
            yield from found if found is not None and is_this else tell_range(self.files, one)

    def rebuild(self, log: Indexed) -> Iterator[Rebuilt]:
        """As `LogReader.rebuild`."""
        if log.postings * POSTING_BYTES <= self.memory_bytes:
            yield from InProcess(self.files).rebuild(log)
            return
        for number in log.seals:
            yield self._rebuild_one(log, number)

    @property
    def _path(self) -> Path:
        """As any process finds it."""
        return self.trace.path if self.trace.is_far else self.trace.path.absolute()

    @property
    def _see_the_same(self) -> bool:
        """Whether a path is the same file for every worker as for this process: all are on this machine."""
        return self.engine.name.startswith("local")

    def _in_order(
        self, work: Callable[[RangeUnit], T | None], ranges: Iterable[Range], what: str
    ) -> Iterator[tuple[Range, T | None]]:
        """Each range with what a worker gave: None where it is to be read here."""
        ranges, one_by_one = iter(ranges), self.trace.is_far or self.engine.workers == 1
        while some := list(islice(ranges, self.engine.workers * AT_ONCE)):
            found: dict[int, T | None] = {}
            if not one_by_one and sum(map(self._bytes, some)) >= FEW_BYTES:
                units = [RangeUnit(str(self._path), one.first, one.stop, one.size) for one in some]
                found = dict(self.engine.results(work, units, what=what))
            for number, one in enumerate(some):
                yield one, found.pop(number, None)

    def _bytes(self, one: Range) -> int:
        """How many bytes its bundles have, as far as they are there."""
        found = 0
        for path in one.paths():
            with suppress(OSError):
                found += (self.trace.path / path).lstat().st_size
        return found

    def _rebuild_one(self, log: Indexed, number: int) -> Rebuilt:
        """The index over the entries before `number`, by workers; what they had to write is removed again."""
        name = hashlib.sha256(b"index %d\n" % number + log.root).hexdigest()[:32]
        trace = self.trace if self.trace.is_far else TraceDir(self._path)
        part = LogPart(trace, log.size, log.root, number, leaves=log.leaves)
        try:
            with scratch_folder(self.scratch, f"verify-{name}") as folder:
                built = self._build(part, folder, log)
        except (OSError, ValueError, MemoryError) as error:
            if self._is_of_trace(error):
                self._find_lost(log.size)
            raise CannotTell(
                f"the index of {log.postings:,} postings was not rebuilt in scratch files, which this machine did not "
                f"let it do ({str(error) or 'MemoryError'}); that says nothing about the trace. Name another folder "
                "with verify --scratch (or FGTRAC_CACHE), raise its limits (ulimit), or give another --memory: more "
                "may need no files, and with less, workers hold less"
            ) from error
        columns = {n: Column(built.column_bytes[n], built.column_digests[n]) for n in COLUMNS}
        return Rebuilt(built.root, built.leaves, columns if number == log.seals[-1] else {})

    def _build(self, part: LogPart, folder: Path, log: Indexed) -> BuiltIndex:
        """By workers; what those of other machines find wrong is said only where this process finds it too."""
        engine = Alone() if self.trace.is_far and not self._see_the_same else self.engine
        while True:
            try:
                return build_large_index(
                    part, engine, folder / "index", folder / "ledger", memory_bytes=self.memory_bytes, keep=False,
                    numbers=log.registering, progress=self._told,
                )  # fmt: skip
            except (FgtracError, OSError) as error:
                if isinstance(error, EngineError) or self._see_the_same or isinstance(engine, Alone):
                    raise
                engine = Alone()

    def _is_of_trace(self, error: Exception) -> bool:
        """Whether it says that a file of the trace is not there any more."""
        if not isinstance(error, FileNotFoundError):
            return False
        return error.filename is None or Path(error.filename).is_relative_to(self._path)  # None: of `TraceDir`

    def _find_lost(self, size: int) -> None:
        """Raise what `files` says of a bundle of a log of `size` entries that is not there any more: they know whether
        it was there before. A seal removes the last one."""
        for number in reversed(range(-(-size // WIDTH))):
            next(iter(self.files.pieces(bundle_tile(number, size).path)), b"")

    def _told(self, _stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)
