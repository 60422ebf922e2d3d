"""One entry at a time out of a sealed log, each checked against the tree head's root before it is believed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any

from fgtrac.errors import FormatError, ProofError, TamperError
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.query.found_places import Places, decode_places
from fgtrac.store.object_answers import BeyondEnd
from fgtrac.store.random_access import OpenFile
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import (
    MemoryNodes,
    check_consistency,
    check_inclusion,
    hash_leaves,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    root,
)
from fgtrac.tlog.note import TreeHead
from fgtrac.tlog.tiles import ENTRIES, WIDTH, Tile, TileNodes, read_bundle, tile_path

SMALL_BYTES = 4096  # what is no column of samples is nearly always shorter
CACHED_EVENTS = 64
FEW_BUNDLES = 4  # in which entries of a trace far away are read though nobody asked for details
WALKS = 32  # through bundles at once


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
    """The first `head.size` entries of a trace's log. Only `check_all` reads a bundle (up to 16 MB) whole."""

    def __init__(self, trace: TraceDir, head: TreeHead) -> None:
        self.head = head
        self._trace = trace
        self._nodes = TileNodes(trace, head.size)
        self._bundles: dict[int, list[int]] = {}
        self._places: Places = {}  # of entries whose bundle need not be walked
        self._events: dict[int, dict[str, Any]] = {}

    def entry(self, number: int) -> bytes:
        """The bytes of an entry. ProofError where the root commits to others, TamperError where the file is gone."""
        with whole(f"entry {number}"):
            data = self._raw(number)
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

    def root_at(self, size: int) -> bytes:
        """The root of the first `size` entries, 1 to those of this head. ProofError where this head's root does not
        extend it, TamperError where a file is gone."""
        with whole(f"the root at {size} entries"):
            found = root(size, self._nodes)
            path = prove_consistency(size, self.head.size, self._nodes)
        check_consistency(size, found, self.head.size, self.head.root, path)
        return found

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
        ones only where those are fewer; of a log far away those first that its push has named. TamperError where the
        log does not hold that many."""
        if self._trace.is_far and count and (known := self._named(kind, count)):
            return known
        wanted = encode("kind") + encode(kind)
        found: list[int] = []
        for least, limit in ((0, SMALL_BYTES), (SMALL_BYTES, 1 << 16)):
            candidates = self._find(wanted, least, limit)
            while len(found) < count and (number := next(candidates, None)) is not None:
                if self.event(number)["kind"] == kind:
                    found.append(number)
        if len(found) != count:
            raise TamperError(
                f"the log holds {len(found)} {kind} entries and its seal counts {count}; run fgtrac verify"
            )
        return sorted(found)

    def places_of(self, numbers: Iterable[int]) -> Places:
        """Where the bytes of entries start and stop in their bundles. TamperError where a file is gone."""
        with whole("the log"):
            return {number: self._place(number) for number in numbers}

    @cached_property
    def _given(self) -> dict[str, Places]:
        return decode_places(self._trace.found_places(), self.head.root)

    def _named(self, kind: str, count: int) -> list[int]:
        """The numbers of the entries of a kind that lie where a push said, each proved as `entry` does; none where it
        said nothing, or something else."""
        places, before = self._given.get(kind, {}), self._places
        if len(places) != count:
            return []
        self._places = before | places
        hashes = sorted({number // WIDTH for number in places if number // WIDTH < self.head.size // WIDTH})
        try:
            with ThreadPoolExecutor(WALKS) as pool:  # what is proved below comes side by side
                list(pool.map(self._expect, places))
                list(pool.map(self._trace.read, (tile_path(0, number, WIDTH) for number in hashes)))
            if all(self.event(number)["kind"] == kind for number in places):
                return sorted(places)
        except (ProofError, FormatError, TamperError, FileNotFoundError, BeyondEnd):
            pass  # nobody has signed it: what is wrong with the log is told by whoever goes over it
        self._places = before
        return []

    def _expect(self, number: int) -> None:
        start, stop = self._place(number)
        self._trace.expect(self._tile(number).path, start, min(stop - start, 1 << 16))

    def check_all(self) -> None:
        """Read and hash every entry, as whoever signs or copies what the log says has to. ProofError where they do not
        lead to the head's root, FormatError or TamperError where a bundle is damaged or gone."""
        leaves: list[bytes] = []
        with whole("the log"):
            for bundle in range(-(-self.head.size // WIDTH)):
                leaves += hash_leaves(read_bundle(self._trace, bundle, self.head.size))
        if root(len(leaves), MemoryNodes(leaves)) != self.head.root:
            raise ProofError(
                f"the entries in {self._trace.path} do not lead to the root of its full seal of {self.head.size} "
                f"entries: they were changed since; run fgtrac verify"
            )

    def locate(self) -> None:
        """Find out now where every entry lies, so that reading one later takes one system call.

        From a cold disk this is one short wait for each entry: bundles wait side by side.
        """
        with whole("the log"), ThreadPoolExecutor(WALKS) as pool:
            bundles = range(-(-self.head.size // WIDTH))
            list(pool.map(self._starts, bundles))
            for bundle in range(self.head.size // WIDTH):
                self._nodes.node(7, 2 * bundle)  # hashes the tile's levels, which every path through it needs

    def fits(self, numbers: Iterable[int], limit: int) -> bool:
        """Whether the entries have at most so many bytes together, and, far away, lie in few bundles (looking into one
        takes requests). Looks no further than where they have more."""
        numbers = list(numbers)
        if self._trace.is_far and len({number // WIDTH for number in numbers}) > FEW_BUNDLES:
            return False
        for number in numbers:
            with whole(f"entry {number}"):
                start, stop = self._place(number)
            limit -= stop - start
            if limit < 0:
                return False
        return True

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Let the disk fetch these entries side by side, before they are read one by one."""
        for number in numbers:
            with whole(f"entry {number}"):
                start, stop = self._place(number)
                with self._open(number // WIDTH) as file:
                    file.expect(start, stop - start)

    def peek(self, number: int, most: int = 1 << 16) -> bytes:
        """The bytes of an entry (its first `most`) as they stand on disk, unchecked: for looking which ones to
        believe."""
        with whole(f"entry {number}"):
            return self._raw(number, most)

    def _find(self, wanted: bytes, least: int, limit: int) -> Iterator[int]:
        """Entries of least up to limit bytes in which `wanted` stands; unchecked."""
        for bundle, starts in self._walks():
            for place, (start, stop) in enumerate(pairwise(starts)):
                if least <= stop - start - 2 < limit and wanted in self.peek(bundle * WIDTH + place):
                    yield bundle * WIDTH + place

    def _walks(self) -> Iterator[tuple[int, list[int]]]:
        """Every bundle in order, with where its entries start: the further one looks, the more are walked side by side,
        as each step of a walk waits for a cold disk."""
        first, stop, ahead = 0, -(-self.head.size // WIDTH), 1
        while first < stop:
            part = range(first, min(first + ahead, stop))
            with ThreadPoolExecutor(WALKS) as pool:
                walks = [pool.submit(self._starts, bundle) for bundle in part]
                for bundle, walk in zip(part, walks, strict=True):
                    with whole(f"bundle {bundle}"):
                        starts = walk.result()
                    yield bundle, starts
            first, ahead = part.stop, 4 * ahead

    def _raw(self, number: int, most: int = 1 << 16) -> bytes:
        start, stop = self._place(number)
        with self._open(number // WIDTH) as file:
            return file.read_at(start, min(stop - start, most))

    def _place(self, number: int) -> tuple[int, int]:
        """Where the bytes of an entry start and stop in its bundle."""
        if not 0 <= number < self.head.size:
            raise ProofError(f"entry {number} is named, and the log has {self.head.size}")
        if number in self._places:
            return self._places[number]
        bundle, place = divmod(number, WIDTH)
        starts = self._starts(bundle)
        return starts[place] + 2, starts[place + 1]

    def _tile(self, number: int) -> Tile:
        bundle = number // WIDTH
        return Tile(ENTRIES, bundle, min(WIDTH, self.head.size - bundle * WIDTH))

    def _starts(self, bundle: int) -> list[int]:
        """Where each entry of a bundle (with its length in front) starts, and the end: only lengths are read."""
        known = self._bundles.get(bundle)
        if known is None:
            with self._open(bundle, scattered=True) as file:
                known = _walk(file, self._tile(bundle * WIDTH))
            self._bundles[bundle] = known
        return known

    def _open(self, bundle: int, *, scattered: bool = False) -> OpenFile:
        tile = self._tile(bundle * WIDTH)
        for path in (tile.path, tile_path(tile.level, tile.number, WIDTH)):  # a partial bundle may have become full
            try:
                return self._trace.opened(path, scattered=scattered)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise FormatError(f"{path} cannot be read: {error}") from error
        raise FileNotFoundError(f"{self._trace.path} has no file {tile.path}")


def _walk(file: OpenFile, tile: Tile) -> list[int]:
    """The starts of a bundle's entries: only lengths are read."""
    starts, at, size = [0], 0, file.size
    for _ in range(tile.width):
        at += 2 + int.from_bytes(file.read_at(at, 2), "big")
        if at > size:
            raise FormatError(f"{tile.path} is cut: it ends after {size} bytes, in entry {len(starts) - 1}")
        starts.append(at)
    return starts
