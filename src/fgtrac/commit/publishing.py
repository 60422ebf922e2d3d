"""What of a sealed trace is published elsewhere, in the order of a seal's writes, and what a newer head makes stale.

    1  the plan            4  artifacts, receipts
    2  bundles and tiles   5  full seals' notes
    3  the index           6  the tree head: the caller's, when all of these are there; then what is stale may go

Before that all that is new is read and hashed here, and held against the head, so that no damaged copy is given away.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fgtrac.commit.plan import SUFFIX, Plan, parse_plan
from fgtrac.commit.tidy import kept_sizes
from fgtrac.errors import FormatError, ProofError, TamperError
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.store.file_digests import FileDigests
from fgtrac.store.trace_dir import TraceDir, is_size
from fgtrac.tlog.merkle import HASH_BYTES, MemoryNodes, hash_leaves, root
from fgtrac.tlog.note import Note, TreeHead, Verifier, parse_note, parse_tree_head, verify_note
from fgtrac.tlog.npy import COLUMNS, column_path
from fgtrac.tlog.tiles import (
    WIDTH,
    Tile,
    TileNodes,
    decode_bundle,
    parse_tile_path,
    partial_tiles,
    read_bundle,
    read_tile,
    tiles_of,
)
from fgtrac.verify.keys import is_about_keys

HEAD = "checkpoint"
_KINDS = tuple(encode("kind") + encode(kind) for kind in ("artifact", "erasure", "seal"))


@dataclass(slots=True)
class Contents:
    """The files that a head needs, in groups to be sent one after the other; the SHA-256 that the log says of artifacts
    among them and the plan of columns, the log also a size; the sizes of full seals that were read; and which artifacts
    were withdrawn."""

    groups: list[list[str]]
    said: dict[str, tuple[int | None, bytes]] = field(default_factory=dict)
    seals: list[int] = field(default_factory=list)
    withdrawn: set[str] = field(default_factory=set)

    @property
    def paths(self) -> list[str]:
        """All of them."""
        return [path for group in self.groups for path in group]


class Signed:
    """What tells a trace's own notes: their text is that of its first entries, a key that its log names signed them."""

    def __init__(self, trace: TraceDir, head: TreeHead) -> None:
        self._trace, self._head = trace, head
        self._nodes = TileNodes(trace, head.size)
        self._keys: list[bytes] = []  # of the log's first `_read` bundles
        self._read = 0
        self._alone = threading.Lock()

    def check(self, note: bytes, size: int) -> Note:
        """The note of the first `size` entries. FormatError for what is no note, ProofError for any other, and for one
        that none of the log's keys signed or whose signature fails."""
        parsed = parse_note(note)
        with self._alone:
            mine = TreeHead(self._head.origin, size, root(size, self._nodes))
            if parse_tree_head(parsed.text) != mine:
                raise ProofError(f"is no head of the log's first {size} entries, whose root is {mine.root.hex()}")
            ids = {line.key_id for line in parsed.signatures if line.name == mine.origin}
            verify_note(note, [self._verifier(ids)])
        return parsed

    def check_here(self, path: str, note: bytes, size: int) -> None:
        """As `check`, for a file of this trace: TamperError that names it."""
        try:
            self.check(note, size)
        except (ProofError, FormatError) as error:
            raise TamperError(f"{path} in {self._trace.path}: {error}; nothing was sent: run fgtrac verify") from error

    def _verifier(self, ids: set[bytes]) -> Verifier:
        """The first key in the log that one of these ids means: the bundles are read until it is found."""
        while True:
            for key in self._keys:
                verifier = Verifier(self._head.origin, key)
                if verifier.key_id in ids:
                    return verifier
            if self._read * WIDTH >= self._head.size:
                raise ProofError("is signed by none of the keys that the log names")
            entries = read_bundle(self._trace, self._read, self._head.size)
            self._keys += [decode_event(entry)["public_key"] for entry in entries if is_about_keys(entry)]
            self._read += 1


def contents_of(trace: TraceDir, head: TreeHead, since: int, digests: FileDigests) -> Contents:
    """What is to be published of a trace under `head`, whose first `since` entries were: tiles of all of it, artifacts
    of what is new. TamperError or FormatError where what is new does not lead to the head's root, and where a note is
    none of this log; FileNotFoundError where a file is gone that the head needs: a seal has just replaced it, or it was
    lost."""
    found = _read(trace, head, since)
    plan = _plan(trace, head)
    names = trace.names()
    there, signed = set(names), Signed(trace, head)
    seals = {*found.seals, plan.index_size} - {0}
    sizes = sorted(seals | {n for n in trace.full_seals() if n <= head.size and f"index/{n}/{HEAD}" in there})
    notes = [f"index/{size}/{HEAD}" for size in sizes]
    for size, note in zip(sizes, notes, strict=True):
        signed.check_here(note, _needed(trace, note), size)
    partial_first = sorted(tiles_of(head.size), key=lambda tile: tile.width == WIDTH)  # a seal may replace them soon
    tiles = [tile.path for tile in partial_first]
    more = {tile.path: tile for size in kept_sizes(trace, head.size) for tile in partial_tiles(size)}
    more = {path: more[path] for path in sorted(more.keys() - set(tiles))}
    for tile in more.values():
        _check_beginning(trace, head, tile)
    receipts = [n for n in names if n.startswith("receipts/") and not n.endswith(durable.TEMPORARY)]
    columns = _columns(trace, plan, found, digests)
    found.groups = [[plan.path], tiles + list(more), columns, sorted(found.said.keys() - set(columns)), receipts, notes]
    return found


def _needed(trace: TraceDir, path: str) -> bytes:
    """A file that the head needs. FileNotFoundError, with the remedy, where it is gone."""
    try:
        return trace.read(path)
    except FileNotFoundError as error:
        raise _is_gone(error) from error


def _is_gone(error: FileNotFoundError) -> FileNotFoundError:
    return FileNotFoundError(f"{error}, which its head needs; nothing was published: run fgtrac seal")


def _plan(trace: TraceDir, head: TreeHead) -> Plan:
    """The head's plan. FormatError for another."""
    path = f"journal/{head.size}{SUFFIX}"
    try:
        plan = parse_plan(_needed(trace, path))
        if plan.stop != head.size or plan.index_size > head.size:
            raise FormatError(f"the plan of a seal ends at {plan.stop} entries, its index at {plan.index_size}")
    except FormatError as error:
        raise FormatError(f"{path} in {trace.path}: {error}; nothing was sent: run fgtrac seal") from error
    return plan


def _columns(trace: TraceDir, plan: Plan, found: Contents, digests: FileDigests) -> list[str]:
    """The newest index's columns, all there, each with the SHA-256 that the plan says."""
    if not plan.index_size:
        return []
    paths = {name: column_path(plan.index_size, name) for name in COLUMNS}
    for name, path in paths.items():
        try:
            digest = digests.of(trace.plain(path))
        except FileNotFoundError as error:
            raise _is_gone(error) from error
        if bytes.fromhex(digest.sha256) != plan.index_digests.get(name):
            raise TamperError(f"{path} in {trace.path} is not what its plan says; nothing was sent: run fgtrac seal")
    found.said |= {path: (None, plan.index_digests[name]) for name, path in paths.items()}
    return list(paths.values())


def _check_beginning(trace: TraceDir, head: TreeHead, tile: Tile) -> None:
    """TamperError unless a partial tile of an older head is the beginning of this head's."""
    count = head.size >> 8 * max(tile.level, 0)
    width = min(WIDTH, count - tile.number * WIDTH)
    part, whole = trace.read(tile.path), trace.read(Tile(tile.level, tile.number, width).path)
    if tile.level >= 0:
        fits = len(part) == tile.width * HASH_BYTES
    else:
        fits = bool(decode_bundle(part, tile.width))
    if not fits or not whole.startswith(part):
        raise TamperError(f"{tile.path} in {trace.path} was changed: run fgtrac verify")


def _read(trace: TraceDir, head: TreeHead, since: int) -> Contents:
    """Hash every bundle from entry `since` on, hold it against its tile, each such tile against the one above it, and
    the last against the root; and collect what the entries say of artifacts and full seals."""
    nodes, found = TileNodes(trace, head.size), Contents([])
    if head.size and root(head.size, nodes) != head.root:
        raise TamperError(f"the hash tiles of {trace.path} do not lead to the root of its head: run fgtrac verify")
    first, bundles = since // WIDTH, -(-head.size // WIDTH)
    for number in range(first, bundles):
        entries = read_bundle(trace, number, head.size)
        tile = Tile(0, number, len(entries))
        hashes = read_tile(trace, tile)
        for place, leaf in enumerate(hash_leaves(entries)):
            if hashes[place * HASH_BYTES : (place + 1) * HASH_BYTES] != leaf:
                raise TamperError(f"entry {number * WIDTH + place} of {trace.path} was changed: run fgtrac verify")
        _check_above(trace, nodes, tile, hashes)
        for place, entry in enumerate(entries):
            if number * WIDTH + place >= since and any(words in entry for words in _KINDS):
                _take(found, number * WIDTH + place, decode_event(entry))
    for tile in tiles_of(head.size):
        if tile.level > 0 and (tile.number + 1) * WIDTH > since >> 8 * tile.level:
            _check_above(trace, nodes, tile, read_tile(trace, tile))
    return found


def _check_above(trace: TraceDir, nodes: TileNodes, tile: Tile, hashes: bytes) -> None:
    """TamperError unless a full tile's root is what the tile above it says; a partial one's hashes are all in the root
    of the log."""
    if tile.width == WIDTH and MemoryNodes(hashes).node(8, 0) != nodes.node(8 * (tile.level + 1), tile.number):
        raise TamperError(f"{tile.path} in {trace.path} is not what the tile above it says: run fgtrac verify")


def _take(found: Contents, number: int, event: Mapping[str, Any]) -> None:
    if event["kind"] == "seal":
        found.seals.append(number + 1)
    elif event["kind"] == "artifact":
        found.said[event["path"]] = event["size"], event["sha256"]
    elif event["kind"] == "erasure":
        found.withdrawn.update(event["artifacts"])
        for path in event["artifacts"]:
            found.said.pop(path, None)


def stale_files(there: Iterable[str], wanted: Iterable[str], size: int) -> list[str]:
    """Which files of a published log of `size` entries only older heads needed, as `tidy` removes them here: partial
    tiles, plans and index columns. What belongs to a larger head is somebody's who is at it."""
    kept = set(wanted)
    return sorted(path for path in there if path not in kept and _is_older(path, size))


def _is_older(path: str, size: int) -> bool:
    folder, _, rest = path.partition("/")
    if folder == "tile":
        try:
            tile = parse_tile_path(path)
        except FormatError:
            return False
        return tile.width < WIDTH and tile.number * WIDTH + tile.width <= size >> 8 * max(tile.level, 0)
    number = rest.partition("/")[0]
    if folder == "journal":
        stem = rest.removesuffix(SUFFIX)
        return rest.endswith(SUFFIX) and is_size(stem) and int(stem) < size
    is_column = folder == "index" and is_size(number) and int(number) <= size
    return is_column and path in {column_path(int(number), name) for name in COLUMNS}
