"""What `fgtrac doctor TRACE` says of a trace's journal: what a process left there, or is writing now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fgtrac.api.finding import Finding, command, fine, named, note, to_do
from fgtrac.api.log_checks import is_temporary
from fgtrac.commit.gather import Segment, read_segments
from fgtrac.commit.plan import SUFFIX
from fgtrac.errors import FgtracError
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir, is_size
from fgtrac.tlog.note import TreeHead

TRIES = 3  # to look at a trace that is sealed meanwhile: a seal takes segments away, and tiles that an older head needs


def read_journal(trace: TraceDir) -> list[Segment]:
    """The journal's segments; again where a seal has taken one away meanwhile."""
    for _ in range(TRIES - 1):
        with suppress(FileNotFoundError):
            return read_segments(trace)
    return read_segments(trace)


def unreadable_journal(trace: TraceDir, error: FgtracError | OSError) -> Finding:
    """Where a file of the journal stands in the way of every seal."""
    if isinstance(error, FgtracError | FileNotFoundError):  # a folder is no file
        remedy = (
            "when no process records, copy the whole trace; then move that file away and "
            f"{command('seal', trace.path)}: what it alone has is lost"
        )
    else:
        remedy = "mend what it says, then ask again"
    return to_do("journal", str(error), remedy)


def journal_findings(
    trace: TraceDir, head: TreeHead | None, held: list[Path], segments: list[Segment], sealed: Mapping[bytes, int]
) -> Iterator[Finding]:
    """What a process that is gone, or one that records, has in the journal."""
    seal = command("seal", trace.path)
    left = sum(f.seq >= sealed.get(s.writer, 0) for s in segments if s.path not in held for f in s.frames)
    damage = "; ".join(s.damage for s in segments if s.damage)
    if damage:
        yield to_do("journal", damage, f"{seal} sets the file aside; if entries are lost, a gap entry says so")
    if held:
        yield note("journal", f"a process is recording: it holds {named([path.name for path in held])}")
    elif left:
        yield to_do("journal", f"{left:,} entries are in no log, and no process records: it was cut off", seal)
    elif not damage:
        yield fine("journal", "nothing is left in it")
    yield from _plans(trace, head.size if head is not None else 0, is_recording=bool(held))
    yield from _temporaries(trace)
    aside = sorted(trace.journal.glob("*.damaged")) if trace.journal.is_dir() else []
    if aside:
        words = f"{named([path.name for path in aside])} set aside as damaged; if entries are lost, a gap entry says so"
        yield note("journal", words, "nothing reads them: keep them if somebody is to look into them")


def _plans(trace: TraceDir, size: int, *, is_recording: bool) -> Iterator[Finding]:
    plans = [path for path in trace.journal.glob(f"*{SUFFIX}") if is_size(path.stem)] if trace.journal.is_dir() else []
    begun = sorted(int(path.stem) for path in plans if int(path.stem) > size)
    if begun and is_recording:
        yield note("seal", f"a seal at {begun[-1]:,} entries was begun: the recording process finishes it")
    elif begun:
        words = f"a seal at {begun[-1]:,} entries was begun and not finished"
        yield to_do("seal", words, f"{command('seal', trace.path)} finishes it (unless a process is at it now)")


def _temporaries(trace: TraceDir) -> Iterator[Finding]:
    left = [name for name in trace.names() if is_temporary(name) and not durable.is_held(trace.path / name)]
    if left:
        words = f"{len(left)} files were cut short in writing: {named(left)}"
        yield to_do("leftovers", words, f"{command('seal', trace.path)} removes them")
