"""What a rank without the common folder has kept, read again and put into the trace and its vault.

NAME.kept/TRACE-ID/journal/  its journal's segments, as in a trace
NAME.kept/TRACE-ID/parcels/  WRITER-N: what else it sends, such as samples' names; readable by their owner alone
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fgtrac.commit.gather import read_segments
from fgtrac.errors import CaptureError, FormatError
from fgtrac.events.codec import decode
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.store.journal import JournalWriter, encode_frame, is_writing, parse_segment_name, scan, segments_of
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault

PIECE_BYTES = 4 << 20  # of frames, at once
_ORDER_FILE = re.compile(r"artifacts/order-[0-9a-f]{16}\.cbor")
_PARCEL = re.compile(r"([0-9a-f]{32})-[0-9]{8,}")


def read_kept(folder: Path) -> Iterator[tuple[Path | None, list[Any]]]:
    """What processes that are gone have left: each parcel with its file, then the frames. FormatError for a parcel that
    is none."""
    for path in sorted((folder / "parcels").glob("*")):
        named = _PARCEL.fullmatch(path.name)
        if named is not None and not is_writing(folder / "journal", bytes.fromhex(named[1])):
            yield path, decode(path.read_bytes())
    for segment in read_segments(TraceDir(folder)):
        if not durable.is_held(segment.path):
            for frames in _pieces([encode_frame(frame.entry) for frame in segment.frames]):
                yield None, ["frames", segment.writer, frames]


def writers_in(folder: Path) -> list[bytes]:
    """Whose segments are there."""
    return sorted({parse_segment_name(path.name)[0] for path in (folder / "journal").glob("*.wal")})


def _pieces(frames: Sequence[bytes]) -> Iterator[bytes]:
    some: list[bytes] = []
    size = 0
    for frame in frames:
        if some and size + len(frame) > PIECE_BYTES:
            yield b"".join(some)
            some, size = [], 0
        some.append(frame)
        size += len(frame)
    if some:
        yield b"".join(some)


class KeptWriter:
    """Writes what ranks have sent, or kept, into the trace and its vault."""

    def __init__(self, trace: TraceDir, vault: Vault) -> None:
        self._trace = trace
        self._vault = vault
        self._journals: dict[bytes, JournalWriter] = {}

    def write(self, said: Any) -> None:
        """One parcel, or frames. FormatError for what no rank can have sent, OSError where the disk refuses."""
        try:
            self._write(*said)
        except (LookupError, TypeError, ValueError) as error:
            raise FormatError(str(error)) from error

    def rotate(self) -> None:
        """Have it on disk, and a seal take it whole."""
        for journal in self._journals.values():
            journal.sync()
            journal.rotate()

    def close(self) -> None:
        """Have it on disk, and let it go."""
        for journal in self._journals.values():
            journal.sync()
            journal.close()
        self._journals.clear()

    def _write(self, what: str, *parts: Any) -> None:
        if what == "frames":
            self._write_frames(*parts)
        elif what == "names":
            self._vault.put_names((name[0], name[1], name[2], name[3] if len(name) > 3 else None) for name in parts[0])
        elif what == "rows":
            self._vault.put_rows(*parts)
        elif what == "opening":
            self._vault.put_opening(*parts)
        elif what == "file":
            if not _ORDER_FILE.fullmatch(parts[0]):
                raise ValueError(f"{parts[0]!r:.60} is no file that a rank writes")
            durable.write_file(self._trace.path / parts[0], parts[1])
        elif what != "here":
            raise ValueError(f"{what!r:.60} is nothing that a rank sends")

    def _write_frames(self, writer: bytes, data: bytes) -> None:
        found = scan(data)
        if found.bad or found.torn:
            raise ValueError(f"{sum(n for _, n in found.bad) + found.torn} of {len(data)} bytes are no whole frames")
        entries = [entry for _at, entry in found.frames]
        for entry in entries:
            if (says := decode_event(entry)["writer"]) != writer:
                raise ValueError(f"an entry of writer {says.hex()} came as one of {writer.hex()}")
        if writer not in self._journals:
            before = [parse_segment_name(path.name)[1] for path in segments_of(self._trace.journal, writer)]
            self._journals[writer] = JournalWriter(self._trace.journal, writer, max(before, default=-1) + 1)
        self._journals[writer].append(entries)


def take_folder(trace: TraceDir, trace_id: bytes, folder: Path) -> None:
    """Put what a rank kept into the trace and its vault: `folder` is NAME.kept or the folder of this trace in it, from
    another host. Twice does no harm. FileNotFoundError where it keeps nothing of this trace, FormatError for a parcel
    that is none, CaptureError where its process is still at work."""
    own = folder if folder.name == trace_id.hex() else folder / trace_id.hex()
    if not (own / "journal").is_dir() and not (own / "parcels").is_dir():
        raise FileNotFoundError(f"{folder} keeps nothing of trace {trace_id.hex()}; name the NAME.kept of a rank of it")
    if any(durable.is_held(path) for path in (own / "journal").glob("*.wal")):
        raise CaptureError(f"{own} is being recorded into by a process now; end that one, then try again")
    vault = Vault.open(trace.vault_path, trace_id, read_only=False)
    writer = KeptWriter(trace, vault)
    try:
        for path, said in read_kept(own):
            try:
                writer.write(said)
            except FormatError as error:
                raise FormatError(f"{path or own / 'journal'} is nothing that a rank keeps: {error}") from error
    finally:
        writer.close()
        vault.close()
