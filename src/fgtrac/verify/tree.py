"""The auditor's first half: the signed head, every entry's bytes, every hash tile, and the root that ties them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from fgtrac.errors import FgtracError, FormatError, ProofError
from fgtrac.events.schema import decode_event
from fgtrac.tlog.merkle import HASH_BYTES, MemoryNodes, leaf_hash, root
from fgtrac.tlog.note import TreeHead, Verifier, parse_note, parse_tree_head
from fgtrac.tlog.tiles import (
    ENTRIES,
    WIDTH,
    Tile,
    encode_bundle,
    parse_tile_path,
    partial_tiles,
    tiles_of,
)
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.keys import Rotation, follow, is_about_keys, may_hold_key, rotations_of
from fgtrac.verify.log_reader import InProcess, LogReader
from fgtrac.verify.reading import ranges_of, read_bundle

HEAD = "checkpoint"


def read_head(files: TraceFiles, path: str = HEAD) -> TreeHead:
    """The tree head of a note, its signature unchecked. FormatError naming the file."""
    try:
        return parse_tree_head(parse_note(files.read(path)).text)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def check_note(files: TraceFiles, path: str, verifier: Verifier | None) -> TreeHead:
    """The tree head of a note that the verifier (if there is one) signed. ProofError or FormatError naming the file."""
    if verifier is None:
        return read_head(files, path)
    try:
        follow(verifier, files.read(path))
    except FgtracError as error:
        raise type(error)(f"{path}: {error}") from error
    return read_head(files, path)


def check_signature(files: TraceFiles, verifier: Verifier | None) -> str:
    """The newest head must be signed by the key in force, to which the verifier's leads through `key` entries.
    CannotTell without a verifier, and where a key on the way was revoked."""
    head = read_head(files)
    if verifier is None:
        raise CannotTell(f"{HEAD} says {head.size} entries; name the public key that you trust to check who signed it")
    rotations, first = find_rotations(files, head)
    try:
        words = follow(verifier, files.read(HEAD), rotations, first)
    except FgtracError as error:
        raise type(error)(f"{HEAD}: {error}") from error
    return f"{HEAD}: {head.size} entries, {words}"


def find_rotations(files: TraceFiles, head: TreeHead) -> tuple[tuple[Rotation, ...], bytes | None]:
    """The `key` entries of a log, and where there are some the `run` entry's key, before anything of them is checked:
    they are believed for their signatures, and the check of `run` looks whether these were all. A missing or malformed
    bundle is passed over: the check of the entries says so."""
    log = Log(files, head)
    found: list[tuple[int, dict[str, Any]]] = []
    for number in range(-(-head.size // WIDTH)):
        with suppress(FormatError, FileNotFoundError):
            if number == 0 or may_hold_key(files.read(log.tile(ENTRIES, number).path)):
                entries = enumerate(log.bundle(number), number * WIDTH)
                found += [(n, decode_event(entry)) for n, entry in entries if is_about_keys(entry)]
    rotations = rotations_of(found)
    runs = [event["public_key"] for _, event in found if event["kind"] == "run"]
    return rotations, runs[0] if rotations and runs else None


@dataclass(slots=True)
class Log:
    """What was read of a log of `size` entries: the leaf hashes of its entries, and what was wrong with a bundle."""

    files: TraceFiles
    head: TreeHead
    leaves: bytearray = field(default_factory=bytearray)
    bad_bundle: Exception | None = None
    nodes: MemoryNodes = field(default_factory=lambda: MemoryNodes(()))
    used: set[str] = field(default_factory=set)
    is_whole: bool = False  # every bundle was there, and the entries lead to the head's root

    def root_at(self, size: int) -> bytes:
        """The root over the first `size` entries as they were read."""
        return root(size, self.nodes)

    def leaf(self, number: int) -> bytes:
        """The leaf hash of an entry as it was read."""
        return bytes(self.leaves[number * HASH_BYTES : (number + 1) * HASH_BYTES])

    def tile(self, level: int, number: int) -> Tile:
        """The tile of that number, as wide as the log has it."""
        return Tile(level, number, min(WIDTH, (self.head.size >> (8 * max(level, 0))) - number * WIDTH))

    def bundle(self, number: int) -> list[bytes]:
        """The entries of a bundle, unchecked. FormatError or FileNotFoundError naming its file."""
        return read_bundle(self.files, number, self.head.size)

    def entries(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[int, bytes]]:
        """Every entry (or those of some numbers) with its number, in order, read once more. ProofError where one is no
        longer what was hashed."""
        numbers = range(self.head.size) if numbers is None else numbers
        wanted = numbers if isinstance(numbers, range) else sorted(numbers)
        for bundle, some in groupby(wanted, lambda number: number // WIDTH):
            entries = self.bundle(bundle)
            for number in some:
                entry = entries[number % WIDTH]
                self.check_same(number, leaf_hash(entry))
                yield number, entry

    def check_same(self, number: int, leaf: bytes) -> None:
        """ProofError unless an entry that was read again has the hash that it had."""
        if leaf != self.leaf(number):
            raise ProofError(f"entry {number} changed while it was read; verify a trace that nobody writes to")

    def row(self, tile: Tile) -> bytes:
        """What a hash tile must hold, by the entries."""
        levels = self.nodes.levels
        row = levels[8 * tile.level] if 8 * tile.level < len(levels) else b""
        start = tile.number * WIDTH * HASH_BYTES
        return row[start : start + tile.width * HASH_BYTES]


def read_log(
    files: TraceFiles,
    head: TreeHead,
    progress: Callable[[int, int], None] | None = None,
    reader: LogReader | None = None,
) -> Log:
    """Hash every entry of the log; what the entries say is not looked at. `progress`: bundles hashed, and in all.

    Stops at the first bundle that is missing or malformed. What others read, and does not lead to the root, this
    process reads again before anything is said about it: their disks may hold something else.
    """
    log, bundles = Log(files, head), -(-head.size // WIDTH)
    try:
        for hashes in (reader or InProcess(files)).hash(ranges_of(head.size)):
            log.leaves += hashes
            if progress is not None:
                progress(-(-len(log.leaves) // (WIDTH * HASH_BYTES)), bundles)
    except (FormatError, OSError, MemoryError) as error:
        log.bad_bundle = error
    hashed = len(log.leaves) // HASH_BYTES
    log.used |= {log.tile(ENTRIES, number).path for number in range(-(-hashed // WIDTH))}
    log.nodes = MemoryNodes(bytes(log.leaves))
    log.is_whole = not log.bad_bundle and log.root_at(head.size) == head.root
    if not log.is_whole and not isinstance(reader, InProcess | None):
        return read_log(files, head, progress)
    return log


def check_tiles(log: Log, older: Iterable[Tile]) -> str:
    """Every hash tile must lead to the head's root; those of `older` sizes must be the beginning of their successors.

    The entries' own hashes say which tile is wrong, as long as they lead to the root; otherwise the tiles among
    themselves do.
    """
    tiles = 0
    for tile, data in _hash_tiles(log):
        tiles += 1
        if log.is_whole and data != log.row(tile):
            raise ProofError(f"{tile.path} does not hold the hashes that the entries and the signed root give")
    if not log.is_whole:
        _check_tiles_alone(log)
    for tile in older:
        if tile.level != ENTRIES:
            _check_older_tile(log, tile)
            tiles += 1
    return f"{'1 hash tile leads' if tiles == 1 else f'{tiles} hash tiles lead'} to the root {log.head.root.hex()}"


def _hash_tiles(log: Log) -> Iterable[tuple[Tile, bytes]]:
    """The head's hash tiles as they are on disk, level by level."""
    level = 0
    while count := log.head.size >> (8 * level):
        for number in range(-(-count // WIDTH)):
            tile = log.tile(level, number)
            data = log.files.read(tile.path)
            if len(data) != tile.width * HASH_BYTES:
                raise FormatError(f"{tile.path} has {len(data)} bytes; {tile.width} hashes have {tile.width * 32}")
            log.used.add(tile.path)
            yield tile, data
        level += 1


def _check_tiles_alone(log: Log) -> None:
    """ProofError unless the tiles on disk, whatever the entries say, lead to the head's root."""
    leaves = _stored_leaves(log)
    stored = Log(log.files, log.head, leaves)
    stored.nodes = MemoryNodes(bytes(leaves))
    for tile, data in _hash_tiles(log):
        expected = stored.row(tile)
        if data != expected:
            first = next(i for i in range(tile.width) if data[i * 32 : i * 32 + 32] != expected[i * 32 : i * 32 + 32])
            below = Tile(tile.level - 1, tile.number * WIDTH + first, WIDTH)
            raise ProofError(f"{tile.path} holds another hash of {below.path} than that tile gives")
    reached = stored.root_at(log.head.size)
    if reached != log.head.root:
        edge = ", ".join(t.path for t in partial_tiles(log.head.size) if t.level != ENTRIES) or Tile(0, 0, WIDTH).path
        raise ProofError(f"the hash tiles lead to the root {reached.hex()}, not {log.head.root.hex()}: see {edge}")


def _stored_leaves(log: Log) -> bytearray:
    leaves = bytearray()
    for tile, data in _hash_tiles(log):
        if tile.level == 0:
            leaves += data
    return leaves


def _check_older_tile(log: Log, tile: Tile) -> None:
    data = log.files.read(tile.path)
    if log.is_whole and data != log.row(tile):
        raise ProofError(f"{tile.path} does not hold the hashes that the entries give")
    log.used.add(tile.path)


def check_entries(log: Log, older: Iterable[Tile], *, tiles_hold: bool) -> str:
    """Every entry must hash to its leaf under the head's root; bundles of `older` sizes must be the beginning of their
    successors."""
    if log.bad_bundle:
        raise log.bad_bundle
    if not log.is_whole:
        _blame_entry(log, tiles_hold=tiles_hold)
    for tile in older:
        if tile.level == ENTRIES:
            _check_older_bundle(log, tile)
    return f"{log.head.size} entries are valid and hash to the leaves under the root"


def _blame_entry(log: Log, *, tiles_hold: bool) -> None:
    try:
        stored = _stored_leaves(log)
    except (FormatError, FileNotFoundError):
        if tiles_hold:
            raise  # it was there when the tiles were checked
        stored = log.leaves
    for number in range(log.head.size):
        at = number * HASH_BYTES
        if stored[at : at + HASH_BYTES] != log.leaves[at : at + HASH_BYTES]:
            path = log.tile(ENTRIES, number // WIDTH).path
            raise ProofError(f"entry {number} in {path} does not have the hash that its tile holds")
    if not tiles_hold:
        raise CannotTell("the entries have the hashes that their tiles hold, but the tiles do not lead to the root")


def _check_older_bundle(log: Log, tile: Tile) -> None:
    if log.files.read(tile.path) != encode_bundle(log.bundle(tile.number)[: tile.width]):
        raise ProofError(f"{tile.path} is not the beginning of {log.tile(ENTRIES, tile.number).path}")
    log.used.add(tile.path)


def partials(log: Log, names: Iterable[str], kept: Iterable[int]) -> tuple[list[Tile], list[Tile]]:
    """The partial tiles beside those of the head: those that the sizes `kept` ask for, and those within the log that
    none does (a crash leaves them until the next seal)."""
    wanted = {tile.path: tile for size in kept for tile in partial_tiles(size)}
    own = {tile.path for tile in tiles_of(log.head.size)}
    left = []
    for name in names:
        with suppress(FormatError):  # no tile's path
            tile = parse_tile_path(name)
            within = tile.number * WIDTH + tile.width <= log.head.size >> (8 * max(tile.level, 0))
            if within and name not in own and name not in wanted:
                left.append(tile)
    return [tile for path, tile in wanted.items() if path not in own], left
