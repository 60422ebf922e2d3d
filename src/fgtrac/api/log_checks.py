"""What `fgtrac doctor TRACE` says of a trace's log, and of the files that its entries name."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime

from fgtrac.api.finding import Finding, cannot_tell, fine, named, note, to_do
from fgtrac.commit.gather import Frame
from fgtrac.commit.indexer import UNFINISHED
from fgtrac.errors import FgtracError, ProofError
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import root
from fgtrac.tlog.note import TreeHead
from fgtrac.tlog.npy import COLUMNS
from fgtrac.tlog.tiles import ENTRIES, WIDTH, TileNodes, parse_tile_path, read_bundle, read_tile, tiles_of
from fgtrac.verify.receipts import parse_path

AHEAD_S = 300  # how far an entry may lie in the future before the clock is in doubt
RESTORE_LOG = "restore that file from a copy: the log is the one thing that nothing rebuilds"
_KINDS = {kind: encode("kind") + encode(kind) for kind in ("artifact", "erasure", "gap")}
_KNOWN = re.compile(
    rf"checkpoint|index/[1-9][0-9]{{0,18}}/(?:checkpoint|(?:{'|'.join(COLUMNS)})\.npy)"
    r"|journal/[0-9a-f]{32}-[0-9]{1,19}\.wal(?:\.damaged)?|journal/[0-9]{1,19}\.seal"
)


class _Told:
    """What entries say of files, and which gaps they tell of."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}  # path -> bytes
        self.withdrawn: set[str] = set()
        self.gaps: list[str] = []

    def take(self, entry: bytes) -> None:
        kind = next((kind for kind, mark in _KINDS.items() if mark in entry), "")
        event = decode_event(entry) if kind else {}
        if event.get("kind") == "artifact":
            self.sizes[event["path"]] = event["size"]
        elif event.get("kind") == "erasure":
            self.withdrawn |= set(event["artifacts"])
        elif event.get("kind") == "gap":
            self.gaps.append(event["reason"])


def log_findings(
    trace: TraceDir, head: TreeHead | None, waiting: list[Frame], now: float, *, is_recording: bool
) -> Iterator[Finding]:
    """What stands in the log and in `waiting`, the frames that are not sealed, and whether the files are there."""
    told, last = _Told(), 0
    try:
        if head is not None:
            for number in range(-(-head.size // WIDTH)):
                entries = read_bundle(trace, number, head.size)
                for entry in entries:
                    told.take(entry)
                last = decode_event(entries[-1])["time"]
            _look_at_tiles(trace, head)
    except (FgtracError, OSError) as error:
        yield to_do("log", str(error), RESTORE_LOG)
        return
    for frame in waiting:
        told.take(frame.entry)
    if told.gaps:
        words = f"{len(told.gaps)} gaps, which the log says itself: {named(list(dict.fromkeys(told.gaps)))}"
        yield note("gaps", words, "nothing brings back what was lost; fgtrac show lists them")
    if last > (now + AHEAD_S) * 10**9:
        then = datetime.fromtimestamp(min(last // 10**9, 10**11), UTC)
        words = f"the newest entry is of {then:%Y-%m-%d %H:%M:%S} UTC, which this machine's clock has not reached"
        yield to_do("clock", words, "set the clock of this machine, or of the one that recorded")
    yield from _files(trace, told, is_recording=is_recording)


def _look_at_tiles(trace: TraceDir, head: TreeHead) -> None:
    """Every hash tile is there and whole, and those at the end lead to the root; that the others fit the entries is for
    the verification. FileNotFoundError, FormatError or ProofError where that is not so."""
    for tile in tiles_of(head.size):
        if tile.level != ENTRIES:
            read_tile(trace, tile)
    if head.size and root(head.size, TileNodes(trace, head.size)) != head.root:
        raise ProofError(f"the hash tiles at the end of the log do not lead to its root {head.root.hex()}")


def _files(trace: TraceDir, told: _Told, *, is_recording: bool) -> Iterator[Finding]:
    there = {name: (trace.path / name).lstat() for name in trace.names()}
    gone = sorted(told.sizes.keys() - told.withdrawn - there.keys())
    if gone:
        yield to_do("artifacts", f"{len(gone)} files that the log names are gone: {named(gone)}", "restore them")
    odd = [name for name, found in there.items() if not stat.S_ISREG(found.st_mode)]
    if odd:
        remedy = "put the file itself in its place, or move it away: a trace has plain files alone"
        yield to_do("files", f"links, pipes or devices: {named(odd)}", remedy)
    cut = [name for name, size in sorted(told.sizes.items()) if name in there and there[name].st_size != size]
    cut = [name for name in cut if name not in odd]
    if cut:
        words = f"{len(cut)} files have another size than the log says: {named(cut)}"
        yield to_do("artifacts", words, "restore them from a copy")
    rest = [name for name in there if name not in told.sizes and name not in odd and not is_temporary(name)]
    left = [name for name in rest if name.startswith(("artifacts/scoring/", "artifacts/targets/"))]
    if left:
        words = f"{len(left)} files of scores that no entry names: {named(left)}"
        yield note("files", words, "the next scoring goes on from them, or removes them")
    unnamed = [name for name in rest if name not in left and name.startswith("artifacts/")]
    if unnamed:
        yield _unnamed(unnamed, is_recording=is_recording)
    unknown = [name for name in rest if not name.startswith("artifacts/") and not _is_known(name)]
    if unknown:
        words = f"{len(unknown)} files that are none of a trace's: {named(unknown)}"
        yield to_do("files", words, "move them away: nothing reads them, and nobody vouches for them")
    if not (gone or odd or cut or unnamed or unknown):
        words = f"{len(there):,}, each of a kind that traces have; every artifact that an entry names is there"
        yield fine("files", words)


def _unnamed(names: list[str], *, is_recording: bool) -> Finding:
    """Artifacts that no entry names: of an entry that is not written yet, or is lost, or of nothing."""
    words = f"{len(names)} artifacts that no entry of the log or the journal names: {named(names)}"
    if is_recording:
        return note("files", words, "leave them: a process is recording, and their entries may follow")
    return cannot_tell("files", words, "leave them: what names them may be lost. Ask who recorded the trace")


def is_temporary(name: str) -> bool:
    """Whether a seal removes this file, once nobody holds it."""
    if name.startswith(f"{UNFINISHED}/"):
        return True
    return name.endswith(durable.TEMPORARY) and name.startswith((
        "artifacts/", "checkpoint.", "engine-", "index/", "journal/", "receipts/", "tile/",
    ))  # fmt: skip


def _is_known(name: str) -> bool:
    if _KNOWN.fullmatch(name) or parse_path(name) is not None:
        return True
    try:
        parse_tile_path(name)
    except FgtracError:
        return False
    return True
