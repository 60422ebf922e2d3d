"""What a seal takes from the journal: each writer's entries that are not sealed yet, and what is known to be lost.

Entries of several writers at work at once (the ranks of a training) may rest on each other: one registers a block,
others use it. So the journal is read twice, what the first reading has is taken, and what it rests on comes before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtrac.commit.plan import Taken
from fgtrac.errors import FormatError, TamperError
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.store.journal import SegmentBytes, is_writing, parse_segment_name, read_frame, scan
from fgtrac.store.trace_dir import TraceDir

MAX_SEQ = 2**64


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame: where it stands and what its entry says of itself. The entry is read again when it is asked
    for, so that a journal takes no more memory than what its frames say."""

    seq: int
    time: int
    kind: str
    path: Path
    at: int
    size_bytes: int
    crc: int
    lost: tuple[bytes, int, int] | None = None  # of a gap entry: writer, first, stop
    registers: bytes | None = None  # of a samples entry: the block
    needs: tuple[bytes | tuple[bytes, int], ...] = ()  # blocks that it names, and of a join entry what began it

    @property
    def entry(self) -> bytes:
        """The entry's bytes. TamperError where another one stands there now."""
        try:
            entry = read_frame(self.path, self.at)
        except FormatError as error:
            raise TamperError(f"{error}: somebody changed it; restore it from a copy") from error
        if zlib.crc32(entry) != self.crc:
            raise TamperError(f"{self.path.name} at offset {self.at}: somebody changed this frame; restore the file")
        return entry


@dataclass(frozen=True, slots=True)
class Damage:
    """Damaged bytes in one place, in words, and the number of the frame behind them: the writer's next whole one, in
    this file or a later one. None where there is none."""

    words: str
    behind: int | None


@dataclass(frozen=True, slots=True)
class Segment:
    """One journal file: its writer, its whole frames, and where it is damaged; all of that in words too, empty where
    it is not."""

    path: Path
    writer: bytes
    number: int
    size_bytes: int
    frames: tuple[Frame, ...]
    damage: str
    damaged: tuple[Damage, ...] = ()

    @property
    def end(self) -> str:
        """The damage behind which there is nothing, in words; empty where there is none."""
        return self.damaged[-1].words if self.damaged and self.damaged[-1].behind is None else ""


@dataclass(frozen=True, slots=True)
class Gathered:
    """New entries in the log's order, as ranges and as bytes, and the gaps that the seal has to record itself; and
    whether these are all, or the next seal goes on behind them."""

    taken: tuple[Taken, ...]
    entries: tuple[bytes, ...]
    gaps: tuple[dict[str, Any], ...]
    is_all: bool = True


def read_segments(trace: TraceDir) -> list[Segment]:
    """Every journal segment, by writer and number. TamperError for a frame that checks out and is no entry of it."""
    return _read(trace, _named(trace))


def read_segments_of(trace: TraceDir, writers: Collection[bytes]) -> list[Segment]:
    """As `read_segments`, of these writers alone; one that another process removes meanwhile is passed over."""
    return _read(trace, [one for one in _named(trace) if one[0] in writers], FileNotFoundError)


def _read(trace: TraceDir, named: list[tuple[bytes, int, Path]], *passed: type[OSError]) -> list[Segment]:
    """The segments of these names, in their order; read from the last one on, as damage is told with what is behind."""
    found: list[Segment] = []
    behind: dict[bytes, int] = {}
    for writer, number, path in reversed(named):
        with suppress(*passed):
            segment = _read_segment(trace.plain(f"journal/{path.name}"), writer, number, behind.get(writer))
            found.append(segment)
            if segment.frames:
                behind[writer] = segment.frames[0].seq
    return found[::-1]


def _named(trace: TraceDir) -> list[tuple[bytes, int, Path]]:
    if not trace.journal.is_dir():
        return []
    return sorted((*parse_segment_name(p.name), p) for p in trace.journal.iterdir() if p.suffix == ".wal")


def _read_segment(path: Path, writer: bytes, number: int, behind: int | None) -> Segment:
    """A segment; `behind` is the number of the writer's first whole frame in the files after it."""
    with path.open("rb", buffering=0) as file:
        data = SegmentBytes(file.fileno())
        found = scan(data, lambda at, entry: _frame(path, writer, at, entry))
    frames = tuple(frame for _, frame in found.frames)
    if not found.bad:
        return Segment(path, writer, number, len(data), frames, "")
    starts = {frame.at: frame.seq for frame in frames}
    damaged = [Damage(_words(path, length, at), starts.get(at + length, behind)) for at, length in found.bad]
    words = _words(path, sum(length for _, length in found.bad), found.bad[0][0])
    return Segment(path, writer, number, len(data), frames, words, tuple(damaged))


def _words(path: Path, length: int, at: int) -> str:
    return f"{length} damaged bytes in {path.name} from offset {at}"


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
    registers = event["block"] if event["kind"] == "samples" else None
    named = [event[n] for n in ("block", "child_block") if n in event] if registers is None else []
    named += [(event["began"][0], event["began"][1])] if event["kind"] == "join" else []
    said = (event["seq"], event["time"], event["kind"])
    return Frame(*said, path, at, len(entry), zlib.crc32(entry), lost, registers, tuple(named))


def gather(
    segments: Sequence[Segment],
    sealed: Mapping[bytes, int],
    before: Mapping[bytes, int],
    later: Sequence[Segment] | None = None,
    most_bytes: int = 1 << 62,
    told: Collection[str] = (),
) -> Gathered:
    """The frames from `sealed[writer]` on, and below `before[writer]` where that is said: writers by the time of their
    first one, each writer's frames together, unless one of them rests on another's: that and those before it come
    first, and where it may not be taken, nor is what rests on it. `later` is another reading of the journal, from which
    only such entries are taken. No more than `most_bytes` of entries are taken, but at least one.

    What is missing before a frame is told with the frame. Damage behind all frames of a writer that is gone is told
    with the last ones of its file, unless it is `told` already.

    TamperError where one sequence number stands for two entries.
    """
    fresh = _fresh(segments, sealed)
    known = fresh if later is None else _fresh(later, sealed)
    explained = [f.lost for mine in known.values() for f in mine.values() if f.lost is not None]
    last = {w: max((n for n in mine if n < before.get(w, MAX_SEQ)), default=-1) for w, mine in fresh.items()}
    ordered = _Order({w: seq for w, seq in last.items() if seq >= 0}, known, before).taken()
    taken = _first_of(ordered, known, most_bytes)
    is_all = taken == ordered
    newest = segments if later is None else later
    damage: dict[tuple[bytes, int | None], list[str]] = {}
    for s in newest:
        for place in s.damaged:
            damage.setdefault((s.writer, place.behind), []).append(place.words)
    entries: list[bytes] = []
    gaps: list[dict[str, Any]] = []
    expected = dict(sealed)
    for one in taken:
        wanted = expected.get(one.writer, 0)
        if one.first > wanted and not _is_explained(one.writer, wanted, one.first, explained):
            missing = {"lost_writer": one.writer, "first": wanted, "stop": one.first}
            gaps.append(_gap(damage.get((one.writer, one.first), []), missing))
        entries += [known[one.writer][seq].entry for seq in range(one.first, one.stop)]
        expected[one.writer] = one.stop
    ends = [s for s in newest if s.end and s.end not in told and _is_sealed(s, expected)]
    gaps += [_gap([s.end], {}) for s in ends if not is_writing(s.path.parent, s.writer)]
    return Gathered(taken, tuple(entries), tuple(gaps), is_all)


Fresh = dict[bytes, dict[int, Frame]]


def _fresh(segments: Sequence[Segment], sealed: Mapping[bytes, int]) -> Fresh:
    """Each writer's frames that are not sealed, by number."""
    fresh: Fresh = {}
    for segment in segments:
        mine = fresh.setdefault(segment.writer, {})
        for frame in segment.frames:
            if frame.seq < sealed.get(segment.writer, 0):
                continue
            other = mine.setdefault(frame.seq, frame)
            if other is not frame and other.entry != frame.entry:
                raise TamperError(f"{segment.path.name}: number {frame.seq} stands for two entries; keep the true one")
    return fresh


def _first_of(ordered: tuple[Taken, ...], known: Fresh, most_bytes: int) -> tuple[Taken, ...]:
    """The ranges from the first one on, as far as their entries have no more bytes; at least one entry."""
    chosen, left = list[Taken](), most_bytes
    for one in ordered:
        for seq in range(one.first, one.stop):
            size = known[one.writer][seq].size_bytes
            if size > left and (chosen or seq > one.first):
                return (*chosen, Taken(one.writer, one.first, seq)) if seq > one.first else tuple(chosen)
            left -= size
        chosen.append(one)
    return tuple(chosen)


class _Order:
    """Lays the frames of several writers one behind another: each writer's up to the number in `last`, and of `known`
    what those rest on, below `before`."""

    def __init__(self, last: Mapping[bytes, int], known: Fresh, before: Mapping[bytes, int]) -> None:
        self._last = last
        self._known = known
        self._before = before
        self._numbers = {writer: sorted(mine) for writer, mine in known.items()}
        self._at = dict.fromkeys(known, 0)  # how many of each writer's are taken
        self._registered: dict[bytes, tuple[bytes, int]] = {}  # block -> where its first registration ends
        for writer, mine in sorted(known.items()):
            for seq in self._numbers[writer]:
                block = mine[seq].registers
                if block is not None and self._registered.get(block, (writer,))[0] == writer:
                    self._registered[block] = writer, seq
        self._runs: list[Taken] = []

    def taken(self) -> tuple[Taken, ...]:
        """Ranges in order."""
        for _time, writer in sorted((self._known[w][self._numbers[w][0]].time, w) for w in self._last):
            self._take(writer, self._last[writer], frozenset())
        return tuple(self._runs)

    def _take(self, writer: bytes, last: int, waiting: frozenset[bytes]) -> bool:
        """A writer's frames up to the number `last`, each behind what it rests on; whether that was possible. `waiting`
        are the writers that wait for this: no recording makes a circle, and one gets the order as it comes."""
        numbers = self._numbers.get(writer, [])
        while self._at.get(writer, 0) < len(numbers) and (seq := numbers[self._at[writer]]) <= last:
            if seq >= self._before.get(writer, MAX_SEQ):
                return False
            for need in self._known[writer][seq].needs:
                other = self._registered.get(need) if isinstance(need, bytes) else need
                if other is None or other[0] in (writer, *waiting):
                    continue
                if not self._take(*other, waiting | {writer}):
                    return False
            self._at[writer] += 1
            if self._runs and self._runs[-1].writer == writer and self._runs[-1].stop == seq:
                self._runs[-1] = Taken(writer, self._runs[-1].first, seq + 1)
            else:
                self._runs.append(Taken(writer, seq, seq + 1))
        return True


def _is_explained(writer: bytes, first: int, stop: int, explained: Sequence[tuple[bytes, int, int]]) -> bool:
    return any(lost[0] == writer and lost[1] <= first and stop <= lost[2] for lost in explained)


def _gap(damage: Sequence[str], missing: dict[str, Any]) -> dict[str, Any]:
    """Entries that are missing, or of which nobody knows how many they were."""
    reason = "damaged frames in the journal" if damage else "frames missing from the journal"
    return {"reason": reason, **({"detail": "; ".join(damage)} if damage else {}), **missing}


def told_damage(entries: Sequence[bytes]) -> set[str]:
    """The damage, in words, that `gap` entries among these name."""
    return {word for entry in entries for word in decode_event(entry).get("detail", "").split("; ")}


def _is_sealed(segment: Segment, sealed: Mapping[bytes, int]) -> bool:
    return all(frame.seq < sealed.get(segment.writer, 0) for frame in segment.frames)


def clear_sealed(segments: Sequence[Segment], sealed: Mapping[bytes, int], told: Collection[str] | None = None) -> None:
    """Delete the segments whose every frame is sealed and to which nobody appends any more; one that another process
    has deleted meanwhile is passed over.

    A damaged one is set aside under another name instead, once what it lost is told: where there is a frame behind the
    damage, with that; else where it is among what was `told`. (None: whatever it is.)
    """
    for segment in segments:
        if not _is_sealed(segment, sealed) or (told is not None and not _is_told(segment, sealed, told)):
            continue
        with suppress(FileNotFoundError), durable.alone_with(segment.path) as size_bytes:
            if size_bytes != segment.size_bytes:
                continue  # held; or its writer added something after it was read, which the next seal takes
            if segment.damage:
                durable.rename(segment.path, segment.path.with_name(segment.path.name + ".damaged"))
            else:
                durable.remove(segment.path)


def _is_told(segment: Segment, sealed: Mapping[bytes, int], told: Collection[str]) -> bool:
    if not segment.damaged:
        return True
    last = segment.damaged[-1]
    return last.words in told if last.behind is None else last.behind < sealed.get(segment.writer, 0)
