"""Entries written and not yet sealed: segments of checksummed frames, one writer each.

frame = length (u32) || CRC-32 over length and entry (u32) || entry        little endian
"""

from __future__ import annotations

import bisect
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fgtrac.errors import FormatError
from fgtrac.store.checksums import Words, moved, prefix_checksums
from fgtrac.store.durable import AppendFile, is_held

HEADER = struct.Struct("<II")
MAX_FRAME_BYTES = 1 << 20
STRETCH = 1 << 16  # offsets that are searched together for whole frames
WINDOW = 4 << 20  # bytes of a segment that are read at once


@dataclass(frozen=True, slots=True)
class Scan:
    """What a segment holds: whole frames as (offset, entry, or what was kept of it), damaged stretches as (offset,
    length), and how many bytes of a torn last frame were dropped."""

    frames: tuple[tuple[int, Any], ...]
    bad: tuple[tuple[int, int], ...]
    torn: int


def encode_frame(entry: bytes) -> bytes:
    """One entry as a frame."""
    length = struct.pack("<I", len(entry))
    return length + struct.pack("<I", zlib.crc32(entry, zlib.crc32(length))) + entry


class Bytes(Protocol):
    """Bytes that are read by slices, as `bytes` are."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice) -> bytes: ...


class SegmentBytes:
    """A segment as `Bytes`, as long as it was when it was opened; a window of it is held at a time."""

    def __init__(self, file: int, window: int = WINDOW) -> None:
        self._file, self._size, self._least = file, os.fstat(file).st_size, window
        self._first, self._window = 0, b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: slice) -> bytes:
        start, stop, _step = where.indices(self._size)
        if not self._first <= start <= stop <= self._first + len(self._window):
            self._first, self._window = start, os.pread(self._file, max(self._least, stop - start), start)
        return self._window[start - self._first : stop - self._first]


def read_frame(path: Path, at: int) -> bytes:
    """The entry of the whole frame that stands at an offset of a segment. FormatError where none does any more."""
    with path.open("rb") as file:
        entry = _frame_at(SegmentBytes(file.fileno(), 1 << 16), at)  # as long as an entry is
    if entry is None:
        raise FormatError(f"{path.name} at offset {at}: a whole frame stood here and does not now")
    return entry


def scan(data: Bytes, keep: Callable[[int, bytes], Any] = lambda _at, entry: entry) -> Scan:
    """Every whole frame of a segment, whatever else it holds; never raises. Of each, `keep` says what is kept.

    Behind a damaged frame the scan goes on at the next place where a frame checks out. Damage up to the end is a
    torn tail where it could be one (a frame that was cut), and a damaged stretch otherwise.
    """
    frames: list[tuple[int, Any]] = []
    bad: list[tuple[int, int]] = []
    at, end, search, in_vain = 0, len(data), _Search(data), 0
    while at < end:
        # `in_vain` bytes were read where no frame stood: of a stranger's segment that could be the square of all.
        entry = _frame_at(data, at) if in_vain <= end else None
        if entry is None:
            start = search.behind(at - 1)
            if start == end and _is_cut(data, at):
                return Scan(tuple(frames), tuple(bad), end - at)
            if start > at:
                in_vain += min(_length_at(data, at), MAX_FRAME_BYTES) if in_vain <= end else 0
                bad.append((at, start - at))
            if start == end:
                break
            at, body = start, start + HEADER.size
            entry = data[body : body + _length_at(data, at)]
        frames.append((at, keep(at, entry)))
        at += HEADER.size + len(entry)
    return Scan(tuple(frames), tuple(bad), 0)


def _length_at(data: Bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _frame_at(data: Bytes, at: int) -> bytes | None:
    if at + HEADER.size > len(data):
        return None
    head = data[at : at + HEADER.size]
    if len(head) < HEADER.size:
        return None  # cut off while it was read
    length, crc = HEADER.unpack(head)
    stop = at + HEADER.size + length
    if length == 0 or length > MAX_FRAME_BYTES or stop > len(data):
        return None
    entry = data[at + HEADER.size : stop]
    return entry if zlib.crc32(entry, zlib.crc32(head[:4])) == crc else None


class _Search:
    """Where whole frames begin, at any offset; found for a stretch of offsets at a time, when it is first asked for.

    Damage, or a stranger, can make every fourth byte look like the head of a long frame: so the checksums of a stretch
    are computed together, and each stretch once.
    """

    def __init__(self, data: Bytes) -> None:
        self._data = data
        self._found: dict[int, list[int]] = {}
        self._front, self._sums = 0, np.zeros(1, dtype=np.uint32)  # prefix_checksums from the offset `_front` on

    def behind(self, damaged: int) -> int:
        """The next offset behind `damaged` where a whole frame begins, or the end."""
        for number in range((damaged + 1) // STRETCH, len(self._data) // STRETCH + 1):
            if number not in self._found:
                self._found[number] = self._whole_frames(number * STRETCH, (number + 1) * STRETCH)
            starts = self._found[number]
            at = bisect.bisect_right(starts, damaged)
            if at < len(starts):
                return starts[at]
        return len(self._data)

    def _whole_frames(self, start: int, stop: int) -> list[int]:
        """The offsets from `start` up to `stop` where whole frames begin."""
        data, stop = self._data, min(stop, len(self._data) - HEADER.size)
        if start >= stop:
            return []
        heads = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data[start : stop + 7], np.uint8), 8)
        lengths, sums = np.ascontiguousarray(heads).view("<u4").T.astype(np.int64)
        offsets = np.arange(start, stop)
        fit = (lengths > 0) & (lengths <= MAX_FRAME_BYTES) & (offsets + HEADER.size + lengths <= len(data))
        offsets, lengths, sums = offsets[fit], lengths[fit], sums[fit]
        if not len(offsets):
            return []
        fronts = offsets - start
        bodies = fronts + HEADER.size
        before = self._checksums(start, start + int((bodies + lengths).max()))
        of_length = moved(before[fronts], np.full_like(fronts, 4)) ^ before[fronts + 4]
        is_whole = moved(of_length ^ before[bodies], lengths) ^ before[bodies + lengths] == sums
        found: list[int] = offsets[is_whole].tolist()
        return found

    def _checksums(self, start: int, stop: int) -> Words:
        """`prefix_checksums` of the bytes from `start` to `stop` at least, behind some common front. What an earlier
        stretch has asked for is kept."""
        known = self._front + len(self._sums) - 1
        if not self._front <= start < known:
            self._front, self._sums, known = start, np.zeros(1, dtype=np.uint32), start
        self._front, self._sums = start, self._sums[start - self._front :]
        if stop > known:
            more = prefix_checksums(self._data[known:stop], int(self._sums[-1]))
            self._sums = np.concatenate([self._sums[:-1], more])
        return self._sums


def _is_cut(data: Bytes, at: int) -> bool:
    """Whether the bytes from `at` look like the beginning of a frame whose end was never written."""
    if at + HEADER.size > len(data):
        return True
    length = int.from_bytes(data[at : at + 4], "little")
    return 0 < length <= MAX_FRAME_BYTES and at + HEADER.size + length > len(data)


def segment_name(writer: bytes, number: int) -> str:
    """The file name of a writer's segment."""
    return f"{writer.hex()}-{number}.wal"


def parse_segment_name(name: str) -> tuple[bytes, int]:
    """Writer and number of a segment's file name. FormatError for any other name."""
    stem, _, number = name.removesuffix(".wal").rpartition("-")
    if not (number.isascii() and number.isdigit() and len(stem) == 32):
        raise FormatError(f"{name!r} is no journal segment; its name is WRITER-N.wal")
    try:
        parsed = bytes.fromhex(stem), int(number)
    except ValueError as error:
        raise FormatError(f"{name!r} is no journal segment; WRITER is 32 hex digits") from error
    if segment_name(*parsed) != name:
        raise FormatError(f"{name!r} is no journal segment; it would be {segment_name(*parsed)}")
    return parsed


def segments_of(folder: Path, writer: bytes) -> list[Path]:
    """A writer's segments that are there."""
    return sorted(folder.glob(f"{writer.hex()}-*.wal"))


def is_writing(folder: Path, writer: bytes) -> bool:
    """Whether the process that a writer belongs to is there: it holds its newest segment as long as it lives."""
    return any(is_held(path) for path in segments_of(folder, writer))


class JournalWriter:
    """Appends one writer's entries; each call is one write. One that `stays` holds a segment from the beginning until
    `close`, also an empty one, so that others can see whether its process is there."""

    def __init__(self, folder: Path, writer: bytes, segment: int = 0, *, stays: bool = False) -> None:
        self._folder = folder
        self._writer = writer
        self._number = segment
        self._stays = stays
        self._file = AppendFile(folder / segment_name(writer, segment))
        if stays:
            self._file.append(b"")

    def append(self, entries: Sequence[bytes]) -> None:
        """Frame the entries and hand them to the operating system. OSError: none of them is in the file."""
        self._file.append(b"".join([encode_frame(e) for e in entries]))

    def sync(self) -> None:
        """Wait until everything appended is on disk."""
        self._file.sync()

    def rotate(self) -> None:
        """Go on in a new segment: the ones before can then be sealed and deleted."""
        if self._file.path.exists() and (not self._stays or self._file.path.stat().st_size):
            before = self._file
            self._number += 1
            self._file = AppendFile(self._folder / segment_name(self._writer, self._number))
            if self._stays:
                self._file.append(b"")  # before the other is let go
            before.close()

    def close(self) -> None:
        """Close the segment."""
        self._file.close()
