"""The log as files: C2SP tlog-tiles paths, entry bundles and hash tiles, and what a growing log has to write.

tile/<L>/<N>[.p/<W>]        hashes, 32 bytes each
tile/entries/<N>[.p/<W>]    entries, each a big-endian uint16 length and its bytes
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fgtrac.errors import FormatError
from fgtrac.tlog.merkle import HASH_BYTES, hash_leaves, parents, root

WIDTH = 256
MAX_ENTRY_BYTES = 65_535
ENTRIES = -1  # the "level" of bundles
_PATH = re.compile(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


class FileReader(Protocol):
    """A log's files by path; FileNotFoundError for one that is not there."""

    def read(self, path: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Tile:
    """Which tile: level (ENTRIES for a bundle), number, and width 1 to 256."""

    level: int
    number: int
    width: int

    @property
    def path(self) -> str:
        """Where it lies."""
        return tile_path(self.level, self.number, self.width)


def tile_path(level: int, number: int, width: int) -> str:
    """The path of a tile, or with level ENTRIES of a bundle."""
    groups = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        groups.insert(0, f"x{number % 1000:03d}")
    kind = "entries" if level == ENTRIES else str(level)
    return f"tile/{kind}/{'/'.join(groups)}" + ("" if width == WIDTH else f".p/{width}")


def parse_tile_path(path: str) -> Tile:
    """The tile that a path names. FormatError for any other path: level 0 to 63, number below 2^64, width to 255."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise FormatError(f"{path!r:.100} is no tile path")
    level = ENTRIES if match[1] == "entries" else int(match[1])
    number = int(match[2].replace("x", "").replace("/", ""))
    tile = Tile(level, number, int(match[3]) if match[3] else WIDTH)
    if tile.path != path:
        raise FormatError(f"{path!r:.100} is no canonical tile path; it would be {tile.path}")
    if level > 63 or number >= 1 << 64 or tile.width > WIDTH:
        raise FormatError(f"{path!r:.100} names no tile: a log has levels to 63, 64-bit numbers and widths to {WIDTH}")
    return tile


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries back to back, each behind its length. ValueError for one that is too long."""
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise ValueError(f"an entry of {len(entry)} bytes; a bundle holds at most {MAX_ENTRY_BYTES} each")
    return b"".join([part for entry in entries for part in (len(entry).to_bytes(2, "big"), entry)])


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """The `width` entries of a bundle. FormatError where it holds fewer, more, or is cut."""
    entries: list[bytes] = []
    at, end = 0, len(data)
    for _ in range(width):
        start = at + 2
        if start > end:
            raise FormatError(f"a bundle of {width} entries ends after {len(entries)}")
        at = start + int.from_bytes(data[at:start], "big")
        if at > end:
            raise FormatError(f"entry {len(entries)} of a bundle is cut: {at - end} of its bytes are missing")
        entries.append(data[start:at])
    if at != end:
        raise FormatError(f"{end - at} bytes follow the {width} entries of a bundle")
    return entries


def tiles_of(size: int) -> list[Tile]:
    """Every bundle and hash tile of a log of `size` entries: full ones, and the partial ones at its right edge."""
    out = []
    for level in (ENTRIES, *range(64)):
        count = size >> (8 * max(level, 0))
        if count == 0:
            break
        out += [Tile(level, n, WIDTH) for n in range(count // WIDTH)]
        if count % WIDTH:
            out.append(Tile(level, count // WIDTH, count % WIDTH))
    return out


def partial_tiles(size: int) -> list[Tile]:
    """The partial tiles of a log of `size` entries: at most one a level."""
    out = []
    for level in (ENTRIES, *range(64)):
        count = size >> (8 * max(level, 0))
        if count == 0:
            break
        if count % WIDTH:
            out.append(Tile(level, count // WIDTH, count % WIDTH))
    return out


class TileNodes:
    """The complete subtrees of a log of `size` entries, read from its tiles (each at most once)."""

    def __init__(self, reader: FileReader, size: int) -> None:
        self._reader = reader
        self._size = size
        self._levels: dict[tuple[int, int], list[bytes]] = {}

    def node(self, level: int, index: int) -> bytes:
        """The hash of one complete subtree. FileNotFoundError or FormatError where its tile is missing or cut."""
        tile_level, inside = divmod(level, 8)
        first = index << inside
        rows = self._rows(tile_level, first // WIDTH)
        while len(rows) <= inside:
            rows.append(parents(rows[-1]))
        at = (first % WIDTH) >> inside
        return rows[inside][at * HASH_BYTES : (at + 1) * HASH_BYTES]

    def _rows(self, level: int, number: int) -> list[bytes]:
        rows = self._levels.get((level, number))
        if rows is None:
            width = min(WIDTH, (self._size >> (8 * level)) - number * WIDTH)
            rows = [read_tile(self._reader, Tile(level, number, width))]
            self._levels[level, number] = rows
        return rows


def read_tile(reader: FileReader, tile: Tile) -> bytes:
    """A hash tile's hashes, from the full tile where the partial one has gone. FormatError for a wrong length."""
    found, data = _read_partial(reader, tile)
    if len(data) != found.width * HASH_BYTES:
        raise FormatError(f"{found.path} has {len(data)} bytes; {found.width} hashes have {found.width * HASH_BYTES}")
    return data[: tile.width * HASH_BYTES]


def read_bundle(reader: FileReader, number: int, size: int) -> list[bytes]:
    """The entries of bundle `number` in a log of `size` entries. FormatError, naming the file, for a damaged one."""
    width = min(WIDTH, size - number * WIDTH)
    found, data = _read_partial(reader, Tile(ENTRIES, number, width))
    try:
        return decode_bundle(data, found.width)[:width]
    except FormatError as error:
        raise FormatError(f"{found.path}: {error}") from error


def _read_partial(reader: FileReader, tile: Tile) -> tuple[Tile, bytes]:
    """A tile's file, or the full one where the partial one has gone; and which of them it is."""
    try:
        return tile, reader.read(tile.path)
    except FileNotFoundError:
        if tile.width == WIDTH:
            raise
        full = Tile(tile.level, tile.number, WIDTH)
        return full, reader.read(full.path)


def read_entries(reader: FileReader, start: int, stop: int, size: int) -> Iterator[bytes]:
    """Entries start to stop of a log of `size` entries, a bundle at a time."""
    for number in range(start // WIDTH, -(-stop // WIDTH)):
        entries = read_bundle(reader, number, size)
        base = number * WIDTH
        yield from entries[max(start - base, 0) : stop - base]


def all_tiles(leaf_hashes: bytes) -> Iterator[tuple[Tile, bytes]]:
    """Every hash tile of the log whose leaf hashes these are, laid end to end."""
    row, level = leaf_hashes, 0
    step = WIDTH * HASH_BYTES
    while row:
        for start in range(0, len(row), step):
            data = row[start : start + step]
            yield Tile(level, start // step, len(data) // HASH_BYTES), data
        row = _next_tile_row(row)
        level += 1


def _next_tile_row(row: bytes) -> bytes:
    """The roots of the full tiles of a row of hashes: the row one tile level up."""
    for _ in range(8):
        row = parents(row[: len(row) // (2 * HASH_BYTES) * 2 * HASH_BYTES])
    return row


@dataclass(frozen=True, slots=True)
class Growth:
    """What a log becomes: its new size and root, and the files that it needs beside those it has."""

    size: int
    root: bytes
    files: dict[str, bytes]


def grow(old_size: int, reader: FileReader, new_entries: Sequence[bytes]) -> Growth:
    """Append entries to a log of `old_size`: reads only its right edge, gives only new tiles.

    The cost follows the new entries: at most one partial tile a level is read.
    """
    size = old_size + len(new_entries)
    files: dict[str, bytes] = {}
    edge = old_size % WIDTH
    entries = [*(read_bundle(reader, old_size // WIDTH, old_size) if edge else ()), *new_entries]
    for start in range(0, len(entries), WIDTH):
        part = entries[start : start + WIDTH]
        files[Tile(ENTRIES, (old_size - edge + start) // WIDTH, len(part)).path] = encode_bundle(part)
    fresh = b"".join(hash_leaves(new_entries))
    level, have = 0, old_size
    while fresh:
        edge = have % WIDTH
        row = (read_tile(reader, Tile(level, have // WIDTH, edge)) if edge else b"") + fresh
        first = have // WIDTH
        for start in range(0, len(row), WIDTH * HASH_BYTES):
            data = row[start : start + WIDTH * HASH_BYTES]
            files[Tile(level, first + start // (WIDTH * HASH_BYTES), len(data) // HASH_BYTES).path] = data
        fresh = _next_tile_row(row[: len(row) // (WIDTH * HASH_BYTES) * WIDTH * HASH_BYTES])
        level, have = level + 1, first
    return Growth(size, root(size, TileNodes(Overlay(reader, files), size)), files)


class Overlay:
    """Files in memory in front of a reader."""

    def __init__(self, reader: FileReader, files: dict[str, bytes]) -> None:
        self._reader = reader
        self._files = files

    def read(self, path: str) -> bytes:
        """The file of that path, from memory if it is there."""
        data = self._files.get(path)
        return self._reader.read(path) if data is None else data
