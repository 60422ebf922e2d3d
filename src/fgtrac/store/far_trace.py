"""A trace on object storage, read through what `TraceDir` offers: whole files, or the ranges of them that are needed.

What is below the trace's name and belongs to no published head (an upload that is under way, or was cut) is not listed:
a head is published last, so that whatever it covers is there.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError, StorageError
from fgtrac.store import durable
from fgtrac.store.object_answers import NoBucketError
from fgtrac.store.object_storage import PLACES, Objects
from fgtrac.store.random_access import OpenFile
from fgtrac.store.range_reads import CACHE_BYTES, MOST_BYTES, WALK_BLOCKS, BlockCache, FarArray, FarFile
from fgtrac.store.trace_dir import NPY_HEADER, NPY_HEADER_BYTES, TraceDir, check_size, is_size, is_small
from fgtrac.tlog.tiles import parse_tile_path

PIECE_BYTES = 1 << 23
MAX_WHOLE_BYTES = 1 << 30  # in memory at once
PLACES_BYTES = 1 << 20


class FarTrace(TraceDir):
    """The trace at `s3://BUCKET/PREFIX/NAME.trace`. Reads raise as those of `TraceDir`, and StorageError where nobody
    answers. There is no journal, and no vault: secrets stay where they were made."""

    is_far = True

    def __init__(self, objects: Objects, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(objects.path)
        self.objects = objects
        self.unpublished = 0  # objects that `names` has passed over
        self._cache = BlockCache(self._fetch, cache_bytes)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        weakref.finalize(self, objects.close)

    @classmethod
    def open(cls, path: Path, cache_bytes: int = CACHE_BYTES) -> FarTrace:
        """FileNotFoundError where no trace was published there, ValueError for what is no such URL."""
        trace = cls(Objects(path), cache_bytes)
        try:
            trace.read("checkpoint")
        except NoBucketError:
            raise
        except FileNotFoundError as error:
            words = f"there is no trace at {trace.path}: nothing was published there; fgtrac push does"
            raise FileNotFoundError(words) from error
        return trace

    def read(self, path: str) -> bytes:
        """As `TraceDir.read`."""
        if path.startswith("tile/"):  # they never change, and are read more than once
            check_size(path, size := self._cache.size(path, MOST_BYTES))
            return self._cache.read(path, 0, size)
        if is_small(path):
            return self.objects.read(path).data
        data = bytearray()
        for piece in self.pieces(path):
            data += piece
            if len(data) > MAX_WHOLE_BYTES:
                raise FormatError(f"{path} has more than the {MAX_WHOLE_BYTES:,} bytes that are read at once")
        return bytes(data)

    def pieces(self, path: str, size: int = PIECE_BYTES) -> Iterator[bytes]:
        """As `TraceDir.pieces`."""
        piece = self.objects.read(path, 0, max(size, PIECE_BYTES))
        at, total = len(piece.data), piece.size
        if piece.data:
            yield piece.data
        while at < total:
            piece = self.objects.read(path, at, max(size, PIECE_BYTES))
            at += len(piece.data)
            if piece.size != total or not piece.data:
                raise FormatError(f"{path} has {piece.size:,} bytes, and had {total:,} when it was begun; try again")
            yield piece.data

    def names(self) -> list[str]:
        """As `TraceDir.names`, of what the head in place covers and of what is no file of a log."""
        head = self.head()
        size = 0 if head is None else head.size
        found = self.objects.listed()
        published = sorted(path for path in found if not _is_beyond(path, size))
        self.unpublished = len(found) - len(published)
        return published

    def plain(self, path: str) -> Path:
        """A copy of a file for opening it, in a folder of this process's own that goes with it."""
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="fgtrac-far-")
        place = Path(self._scratch.name, path)
        if Path(self._scratch.name) not in place.parents or ".." in place.parts:
            raise FormatError(f"{path!r:.100} leads out of the trace")
        if not place.exists():
            durable.write_file(place, self.pieces(path), mode=0o600, sync=False)
        return place

    def opened(self, path: str, *, scattered: bool = False) -> OpenFile:
        """As `TraceDir.opened`; `scattered` for who goes from entry to entry, and is given more at a time."""
        return FarFile(self._cache, path, WALK_BLOCKS if scattered else 0)

    def expect(self, path: str, start: int, length: int) -> None:
        """As `TraceDir.expect`: they are fetched, and how long the file is comes with them."""
        self._cache.read(path, start, length)

    def found_places(self) -> bytes:
        """As `TraceDir.found_places`. Where it cannot be had, whoever asks goes over the log."""
        with suppress(FileNotFoundError, StorageError):
            return self.objects.read(PLACES, 0, PLACES_BYTES).data
        return b""

    def mapped(self, path: str) -> NDArray[np.generic]:
        """A .npy file whose rows are fetched when they are asked for; raises as `TraceDir.mapped`."""
        header = self._cache.read(path, 0, NPY_HEADER_BYTES)
        if NPY_HEADER.fullmatch(header) is None:
            raise FormatError(f"{path} does not begin like a .npy file of fgtrac; fgtrac push --again puts it back")
        array = FarArray(self._cache, path)
        if (size := self._cache.size(path)) != array.offset + array.nbytes:
            raise FormatError(f"{path} has {size:,} bytes, and its header asks for {array.offset + array.nbytes:,}")
        return array  # type: ignore[return-value]  # what index and log ask of an array, it answers

    def full_seals(self) -> list[int]:
        """As `TraceDir.full_seals`."""
        return sorted(int(name) for name in self.objects.folders("index/") if is_size(name))

    def _fetch(self, path: str, start: int, length: int) -> tuple[bytes, int]:
        piece = self.objects.read(path, start, length)
        return piece.data, piece.size


def _is_beyond(path: str, size: int) -> bool:
    """Whether a path is of a log with more entries than `size`."""
    folder, _, rest = path.partition("/")
    if folder == "tile":
        with suppress(FormatError):
            tile = parse_tile_path(path)
            return tile.number * 256 + tile.width > size >> 8 * max(tile.level, 0)
    if folder in ("index", "journal"):
        number = rest.partition("/")[0].removesuffix(".seal")
        return is_size(number) and int(number) > size
    return False
