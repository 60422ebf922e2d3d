"""The unit of building views: a range of the log is read and hashed, and its rows are written as pieces of views."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.query.log import SealedLog, whole
from fgtrac.query.view_cache import is_intact
from fgtrac.query.view_files import ViewFile
from fgtrac.query.view_rows import RangeRows
from fgtrac.query.view_schema import FORMAT, VIEWS
from fgtrac.query.view_setting import RolesFile, load_roles, load_setting
from fgtrac.query.view_uses import waiting_bytes
from fgtrac.store import durable
from fgtrac.store.places import ONCE_BYTES, open_to_read
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import HASH_BYTES, MemoryNodes, hash_leaves, root
from fgtrac.tlog.note import TreeHead
from fgtrac.tlog.tiles import ENTRIES, WIDTH, Tile, read_bundle

RANGE_BYTES = 1 << 25  # of a log, at least: 8 million uses or so
MOST_RANGES = 256
WORKER_BYTES = 1 << 28  # what a worker holds beside uses that wait: a bundle, and row groups as they are written
TILE_LEVEL = 8  # of the hash over a full bundle
BUILT = tuple(view for view in VIEWS if view != "samples")


@dataclass(frozen=True, slots=True)
class RangeUnit:
    """Bundles `start` to `stop` of the log under a head, the folder of the setting and of what is written, and how much
    memory the worker may take, by which no byte changes."""

    number: int
    trace: str
    head: TreeHead
    start: int
    stop: int
    folder: str
    setting: bytes
    roles: RolesFile
    memory_bytes: int

    @property
    def mark(self) -> bytes:
        """What determines every byte that the unit writes."""
        head = [self.head.origin, self.head.size, self.head.root]
        return hashlib.sha256(encode([FORMAT, head, self.start, self.stop, self.setting, self.roles.sha256])).digest()

    @property
    def said(self) -> Path:
        """Where the unit says what it has written, once all of that is there."""
        return Path(self.folder, f"range-{self.number}.cbor")


@dataclass(frozen=True, slots=True)
class Written:
    """What a unit wrote: of each view that has rows what the manifest says of the piece, how many entries of each kind
    there are, the hashes over full bundles end to end, and the leaf hashes of one that is not full."""

    files: Mapping[str, Mapping[str, Any]]
    counted: Mapping[str, int]
    tiles: bytes
    rest: bytes


def ranges_of(trace: TraceDir, size: int) -> list[tuple[int, int]]:
    """The bundles of a log in ranges of about as many bytes each, whoever builds. Of a bundle that is not there, the
    unit of its range tells."""
    bundles = -(-size // WIDTH)
    sizes = [_bytes_of(trace, Tile(ENTRIES, n, min(WIDTH, size - n * WIDTH))) for n in range(bundles)]
    wanted, found, start, here = max(RANGE_BYTES, sum(sizes) // MOST_RANGES), [], 0, 0
    for bundle, more in enumerate(sizes):
        here += more
        if here >= wanted or bundle == bundles - 1:
            found.append((start, bundle + 1))
            start, here = bundle + 1, 0
    return found


def _bytes_of(trace: TraceDir, tile: Tile) -> int:
    for path in (tile.path, Tile(tile.level, tile.number, WIDTH).path):
        try:
            with trace.opened(path) as file:
                return file.size
        except (FileNotFoundError, FormatError):
            continue
    return 0


def build_range(unit: RangeUnit) -> Written:
    """Write the pieces of a range, unless they are there and whole.

    ProofError where the log is not what was sealed or contradicts itself, FormatError or TamperError for damaged files.
    """
    if (before := _written_before(unit)) is not None:
        return before
    folder, trace = Path(unit.folder), open_to_read(unit.trace, ONCE_BYTES)
    with ExitStack() as stack:
        thread = stack.enter_context(ThreadPoolExecutor(1))
        files = {view: ViewFile(folder / f"{view}-{unit.number}.parquet", view, thread) for view in BUILT}
        for file in files.values():
            stack.callback(file.abandon)
        setting = load_setting(folder, unit.setting)
        waiting = None
        if waiting_bytes(setting.samples) > unit.memory_bytes - WORKER_BYTES:
            waiting = folder / f"waiting-{unit.number}.{os.urandom(8).hex()}{durable.TEMPORARY}"
            stack.callback(durable.remove, waiting)
        rows = RangeRows(SealedLog(trace, unit.head), setting, load_roles(folder, unit.roles), files, waiting)
        tiles, rest = bytearray(), b""
        for bundle in range(unit.start, unit.stop):
            with whole("the views"):
                entries = read_bundle(trace, bundle, unit.head.size)
            leaves = hash_leaves(entries)
            for place, entry in enumerate(entries):
                rows.add(bundle * WIDTH + place, entry)
            if len(leaves) == WIDTH:
                tiles += root(WIDTH, MemoryNodes(leaves))
            else:
                rest = b"".join(leaves)
        rows.finish()
        there = {view: file.close() for view, file in files.items() if file.has_rows or not unit.number}
    said = {"mark": unit.mark, "files": there, "counted": dict(rows.counted), "tiles": bytes(tiles), "rest": rest}
    data = encode(said)
    durable.write_file(unit.said, data + hashlib.sha256(data).digest(), mode=0o600, sync=False)
    return Written(there, dict(rows.counted), bytes(tiles), rest)


def _written_before(unit: RangeUnit) -> Written | None:
    """What this unit wrote before its builder was stopped; None unless all of it is there as it was written."""
    try:
        data = unit.said.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(data[:-HASH_BYTES]).digest() != data[-HASH_BYTES:]:
        return None
    said = decode(data[:-HASH_BYTES])
    if said.pop("mark") != unit.mark or not all(
        is_intact(Path(unit.folder, f["name"]), f) for f in said["files"].values()
    ):
        return None
    return Written(**said)


class JoinedNodes:
    """A tree's complete subtrees, from what the units of all ranges hashed, in their order."""

    def __init__(self, written: Sequence[Written]) -> None:
        tiles = b"".join(one.tiles for one in written)
        self._full = len(tiles) // HASH_BYTES
        self._above, self._edge = MemoryNodes(tiles), MemoryNodes(written[-1].rest)

    def node(self, level: int, index: int) -> bytes:
        """The hash of one complete subtree: of full bundles, or inside the last one."""
        if level >= TILE_LEVEL:
            return self._above.node(level - TILE_LEVEL, index)
        return self._edge.node(level, index - (self._full << (TILE_LEVEL - level)))
