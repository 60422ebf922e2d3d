"""What a seal takes from the journal: each writer's entries that are not sealed yet, and what is known to be lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtrac.commit.plan import Taken
from fgtrac.errors import FormatError, TamperError
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.store.journal import parse_segment_name, scan
from fgtrac.store.trace_dir import TraceDir

MAX_SEQ = 2**64


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame: its entry's bytes and what it says of itself."""

    seq: int
    time: int
    kind: str
    entry: bytes
    lost: tuple[bytes, int, int] | None  # of a gap entry: writer, first, stop


@dataclass(frozen=True, slots=True)
class Segment:
    """One journal file: its writer, its whole frames, and whether some of its bytes are damaged."""

    path: Path
    writer: bytes
    number: int
    size_bytes: int
    frames: tuple[Frame, ...]
    damage: str  # in words; empty where there is none


@dataclass(frozen=True, slots=True)
class Gathered:
    """New entries in the log's order, as ranges and as bytes, and the gaps that the seal has to record itself."""

    taken: tuple[Taken, ...]
    entries: tuple[bytes, ...]
    gaps: tuple[dict[str, Any], ...]


def read_segments(trace: TraceDir) -> list[Segment]:
    """Every journal segment, by writer and number. TamperError for a frame that checks out and is no entry of it."""
    if not trace.journal.is_dir():
        return []
    named = [(*parse_segment_name(p.name), p) for p in trace.journal.iterdir() if p.suffix == ".wal"]
    return [_read_segment(trace.plain(f"journal/{p.name}"), writer, number) for writer, number, p in sorted(named)]


def _read_segment(path: Path, writer: bytes, number: int) -> Segment:
    data = path.read_bytes()
    found = scan(data)
    frames = tuple(_frame(path, writer, at, entry) for at, entry in found.frames)
    damaged = sum(length for _, length in found.bad)
    words = f"{damaged} damaged bytes in {path.name} from offset {found.bad[0][0]}" if found.bad else ""
    return Segment(path, writer, number, len(data), frames, words)


def _frame(path: Path, writer: bytes, at: int, entry: bytes) -> Frame:
    try:
        event = decode_event(entry)
    except FormatError as error:
        raise TamperError(
            f"{path.name} at offset {at}: a whole frame holds no entry ({error}); move the file away"
        ) from error
    if event["writer"] != writer:
        raise TamperError(f"{path.name} at offset {at}: an entry of writer {event['writer'].hex()}; move the file away")
    lost = (event["lost_writer"], event["first"], event["stop"]) if "lost_writer" in event else None
    return Frame(event["seq"], event["time"], event["kind"], entry, lost)


def gather(segments: Sequence[Segment], sealed: Mapping[bytes, int], before: Mapping[bytes, int]) -> Gathered:
    """The frames from `sealed[writer]` on, and below `before[writer]` where that is said: writers by the time of their
    first one, each writer's frames together.

    TamperError where one sequence number stands for two entries.
    """
    fresh: dict[bytes, dict[int, Frame]] = {}
    for segment in segments:
        mine = fresh.setdefault(segment.writer, {})
        stop = before.get(segment.writer, MAX_SEQ)
        for frame in segment.frames:
            if not sealed.get(segment.writer, 0) <= frame.seq < stop:
                continue
            if mine.setdefault(frame.seq, frame).entry != frame.entry:
                raise TamperError(f"{segment.path.name}: number {frame.seq} stands for two entries; keep the true one")
    explained = [f.lost for mine in fresh.values() for f in mine.values() if f.lost is not None]
    order = sorted((min(mine.items())[1].time, writer) for writer, mine in fresh.items() if mine)
    taken: list[Taken] = []
    entries: list[bytes] = []
    gaps: list[dict[str, Any]] = []
    for _time, writer in order:
        mine = fresh[writer]
        expected = sealed.get(writer, 0)
        for first, stop in _runs(sorted(mine)):
            if first > expected and not _is_explained(writer, expected, first, explained):
                gaps.append(_gap(segments, writer, {"lost_writer": writer, "first": expected, "stop": first}))
            taken.append(Taken(writer, first, stop))
            entries += [mine[seq].entry for seq in range(first, stop)]
            expected = stop
    return Gathered(tuple(taken), tuple(entries), tuple(gaps + _lost_ends(segments, gaps)))


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs


def _is_explained(writer: bytes, first: int, stop: int, explained: Sequence[tuple[bytes, int, int]]) -> bool:
    return any(lost[0] == writer and lost[1] <= first and stop <= lost[2] for lost in explained)


def _gap(segments: Sequence[Segment], writer: bytes, missing: dict[str, Any]) -> dict[str, Any]:
    words = "; ".join(s.damage for s in segments if s.writer == writer and s.damage)
    reason = "damaged frames in the journal" if words else "frames missing from the journal"
    return {"reason": reason, **({"detail": words} if words else {}), **missing}


def _lost_ends(segments: Sequence[Segment], gaps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Damage with no whole frame behind it, in a file to which nobody appends: how many entries it held is unknown."""
    named = {gap.get("lost_writer") for gap in gaps}
    ends = [s for s in segments if s.damage and s.writer not in named and not durable.is_held(s.path)]
    return [_gap([s], s.writer, {}) for s in ends]


def clear_sealed(segments: Sequence[Segment], sealed: Mapping[bytes, int]) -> None:
    """Delete the segments whose every frame is sealed and to which nobody appends any more.

    A damaged one is set aside under another name instead: the gap entry says what it lost.
    """
    for segment in segments:
        if any(frame.seq >= sealed.get(segment.writer, 0) for frame in segment.frames):
            continue
        with durable.alone_with(segment.path) as size_bytes:
            if size_bytes != segment.size_bytes:
                continue  # held; or its writer added something after it was read, which the next seal takes
            if segment.damage:
                durable.rename(segment.path, segment.path.with_name(segment.path.name + ".damaged"))
            else:
                durable.remove(segment.path)
