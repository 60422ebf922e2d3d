"""Going over a trace's log with an engine's workers, in memory that does not grow with the uses: what `verify` does.

Each worker reads its ranges of the log from the trace's folder. What is wrong with a range is not told by a worker: it
is read again here, so that words and order are those of one process. An index that does not fit in memory is rebuilt
through files in a scratch folder (`fgtrac.store.index_build`), and only its digests are kept.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from fgtrac.api.scratch import scratch_folder
from fgtrac.engine.units import Engine
from fgtrac.errors import FgtracError
from fgtrac.store.index_build import LogPart, build_large_index
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.npy import COLUMNS
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.log_reader import Column, Indexed, InProcess, Rebuilt
from fgtrac.verify.reading import Range, Told, hash_range, tell_range

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
    except (FgtracError, OSError):
        return None


def tell_unit(unit: RangeUnit) -> list[Told] | None:
    """What the entries of a range say; None where something is wrong there."""
    try:
        return list(tell_range(TraceDir(Path(unit.trace)), Range(unit.first, unit.stop, unit.size)))
    except (FgtracError, OSError):
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
        for one, found in self._in_order(hash_unit, ranges, "hashing the log"):
            if found is None:
                yield from hash_range(self.files, one)
            else:
                yield found

    def tell(self, ranges: Iterable[Range]) -> Iterator[Told]:
        """As `LogReader.tell`."""
        for one, found in self._in_order(tell_unit, ranges, "reading the log"):
            yield from tell_range(self.files, one) if found is None else found

    def rebuild(self, log: Indexed) -> Iterator[Rebuilt]:
        """As `LogReader.rebuild`."""
        if self.trace.is_far or log.postings * POSTING_BYTES <= self.memory_bytes:
            yield from InProcess(self.files).rebuild(log)
            return
        for number in log.seals:
            yield self._rebuild_one(log, number)

    def _in_order(
        self, work: Callable[[RangeUnit], T | None], ranges: Iterable[Range], what: str
    ) -> Iterator[tuple[Range, T | None]]:
        """Each range with what a worker gave: None where it is to be read here."""
        ranges, one_by_one = iter(ranges), self.trace.is_far or self.engine.workers == 1
        while some := list(islice(ranges, self.engine.workers * AT_ONCE)):
            found: dict[int, T | None] = {}
            if not one_by_one and sum(map(self._bytes, some)) >= FEW_BYTES:
                units = [RangeUnit(str(self.trace.path), one.first, one.stop, one.size) for one in some]
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
        part = LogPart(self.trace.path, log.size, log.root, number, leaves=log.leaves)
        try:
            with scratch_folder(self.scratch, f"verify-{name}") as folder:
                built = build_large_index(
                    part, self.engine, folder / "index", folder / "ledger", memory_bytes=self.memory_bytes, keep=False,
                    numbers=log.registering, progress=self._told,
                )  # fmt: skip
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise CannotTell(
                f"the index of {log.postings:,} postings was not rebuilt: its scratch files found no room "
                f"({error}); name a folder on a larger disk with --scratch, or give more --memory"
            ) from error
        columns = {n: Column(built.column_bytes[n], built.column_digests[n]) for n in COLUMNS}
        return Rebuilt(built.root, built.leaves, columns if number == log.seals[-1] else {})

    def _told(self, _stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)
