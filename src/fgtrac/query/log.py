"""One entry at a time out of a sealed log, each checked against the tree head's root before it is believed."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fgtrac.errors import FormatError, ProofError, TamperError
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import check_inclusion, leaf_hash, prove_inclusion
from fgtrac.tlog.note import TreeHead
from fgtrac.tlog.tiles import ENTRIES, WIDTH, Tile, TileNodes, tile_path

SMALL_BYTES = 4096  # what is no column of samples is nearly always shorter
CACHED_EVENTS = 64


@contextmanager
def whole(what: str) -> Iterator[None]:
    """Inside a trace, a file that is missing is not the caller's mistake: TamperError in place of FileNotFoundError."""
    try:
        yield
    except FileNotFoundError as error:
        raise TamperError(
            f"{error}: {what} needs it; restore the trace, or run fgtrac seal if it is an index"
        ) from error


class SealedLog:
    """The first `head.size` entries of a trace's log. No bundle (up to 16 MB) is ever decoded or hashed as a whole."""

    def __init__(self, trace: TraceDir, head: TreeHead) -> None:
        self.head = head
        self._trace = trace
        self._nodes = TileNodes(trace, head.size)
        self._bundles: dict[int, tuple[mmap.mmap, list[int]]] = {}
        self._events: dict[int, dict[str, Any]] = {}

    def entry(self, number: int) -> bytes:
        """The bytes of an entry. ProofError where the root commits to others, TamperError where the file is gone."""
        with whole(f"entry {number}"):
            data = bytes(self._raw(number))
            path = prove_inclusion(number, self.head.size, self._nodes)
        try:
            check_inclusion(self.head.root, number, self.head.size, leaf_hash(data), path)
        except ProofError as error:
            raise ProofError(
                f"entry {number} in {self._tile(number).path} is not the one that was sealed: {error}"
            ) from error
        return data

    def path(self, number: int) -> tuple[bytes, ...]:
        """The audit path of an entry in the tree of this head."""
        with whole(f"the proof of entry {number}"):
            return tuple(prove_inclusion(number, self.head.size, self._nodes))

    def event(self, number: int) -> Mapping[str, Any]:
        """The event of an entry, checked as `entry` does."""
        event = self._events.get(number)
        if event is None:
            try:
                event = decode_event(self.entry(number))
            except FormatError as error:
                raise FormatError(f"entry {number}: {error}") from error
            if len(self._events) >= CACHED_EVENTS:
                self._events.pop(next(iter(self._events)))
            self._events[number] = event
        return event

    def find_kind(self, kind: str, count: int) -> list[int]:
        """The numbers of the `count` entries of one kind, ascending: the short entries are looked at first, the long
        ones only where those are fewer. TamperError where the log does not hold that many."""
        wanted = encode("kind") + encode(kind)
        found = self._find(wanted, 0, SMALL_BYTES) if count else []
        if len(found) < count:
            found = sorted(found + self._find(wanted, SMALL_BYTES, 1 << 16))
        found = [n for n in found if self.event(n)["kind"] == kind]
        if len(found) != count:
            raise TamperError(
                f"the log holds {len(found)} {kind} entries and its seal counts {count}; run fgtrac verify"
            )
        return found

    def peek(self, number: int) -> memoryview:
        """The bytes of an entry as they stand on disk, unchecked and not copied: for looking which ones to read."""
        with whole(f"entry {number}"):
            return self._raw(number)

    def _find(self, wanted: bytes, least: int, limit: int) -> list[int]:
        """Entries of least up to limit bytes in which `wanted` stands; unchecked."""
        found = []
        for bundle in range(-(-self.head.size // WIDTH)):
            with whole(f"bundle {bundle}"):
                data, starts = self._bundle(bundle)
            for place in range(len(starts) - 1):
                start, stop = starts[place] + 2, starts[place + 1]
                if least <= stop - start < limit and data.find(wanted, start, stop) >= 0:
                    found.append(bundle * WIDTH + place)
        return found

    def _raw(self, number: int) -> memoryview:
        if not 0 <= number < self.head.size:
            raise ProofError(f"entry {number} is named, and the log has {self.head.size}")
        data, starts = self._bundle(number // WIDTH)
        place = number % WIDTH
        return memoryview(data)[starts[place] + 2 : starts[place + 1]]

    def _tile(self, number: int) -> Tile:
        bundle = number // WIDTH
        return Tile(ENTRIES, bundle, min(WIDTH, self.head.size - bundle * WIDTH))

    def _bundle(self, bundle: int) -> tuple[mmap.mmap, list[int]]:
        """A bundle, mapped, and where each of its entries (with its length in front) starts, and the end."""
        known = self._bundles.get(bundle)
        if known is None:
            tile = self._tile(bundle * WIDTH)
            data = self._map(tile)
            starts, at = [0], 0
            for _ in range(tile.width):
                at += 2 + int.from_bytes(data[at : at + 2], "big")
                if at > len(data):
                    raise FormatError(
                        f"{tile.path} is cut: it ends after {len(data)} bytes, in entry {len(starts) - 1}"
                    )
                starts.append(at)
            known = self._bundles[bundle] = (data, starts)
        return known

    def _map(self, tile: Tile) -> mmap.mmap:
        for path in (tile.path, tile_path(tile.level, tile.number, WIDTH)):  # a partial bundle may have become full
            try:
                with (self._trace.path / path).open("rb") as file:
                    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (ValueError, OSError) as error:
                raise FormatError(f"{path} cannot be read: {error}") from error
        raise FileNotFoundError(f"{self._trace.path} has no file {tile.path}")
