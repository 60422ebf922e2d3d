"""Objects far away, read by ranges through one cache: as open files, and as arrays that fetch the rows asked for."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError

BLOCK_BYTES = 1 << 14  # fetched at least
MOST_BYTES = 1 << 22  # fetched at once, where blocks are asked for one behind the other
WALK_BLOCKS = 4  # as far as the longest entry reaches
CACHE_BYTES = 1 << 27
NPY_HEADER_BYTES = 128

Fetch = Callable[[str, int, int], tuple[bytes, int]]  # path, start, length -> bytes, and the size of the whole


class BlockCache:
    """Blocks of objects that do not change, the least recently used of them forgotten when there are too many."""

    def __init__(self, fetch: Fetch, limit_bytes: int = CACHE_BYTES) -> None:
        self._fetch, self._limit = fetch, limit_bytes
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._held = 0
        self._sizes: dict[str, int] = {}
        self._ends: dict[str, tuple[int, int]] = {}  # where the last fetch of an object ended, and how long it was
        self._lock = Lock()

    def size(self, path: str, wanted: int = 1) -> int:
        """How many bytes an object has, and at least the first `wanted` come with the answer, where it was not known.
        FileNotFoundError where there is none."""
        if path not in self._sizes:
            self._fill(path, 0, -(-wanted // BLOCK_BYTES))
        return self._sizes[path]

    def read(self, path: str, start: int, length: int, near: int = 0) -> bytes:
        """At most `length` bytes from `start` on; fewer at the end. Who begins at most `near` blocks behind the last
        fetch is taken to read on."""
        if path not in self._sizes and length > 0:  # which this answer says, too
            self._fill(path, start // BLOCK_BYTES, (start + length - 1) // BLOCK_BYTES - start // BLOCK_BYTES + 1)
        stop = min(start + length, self.size(path))
        if start >= stop:
            return b""
        first, last = start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
        parts: list[bytes] = []
        for number in range(first, last + 1):
            with self._lock:
                block = self._blocks.get((path, number))
                if block is not None:
                    self._blocks.move_to_end((path, number))
            parts.append(block if block is not None else self._fill(path, number, last + 1 - number, near))
        data = b"".join(parts) if len(parts) > 1 else parts[0]
        return data[start - first * BLOCK_BYTES : stop - first * BLOCK_BYTES]

    def _fill(self, path: str, number: int, wanted: int, near: int = 0) -> bytes:
        """Fetch a block, with those of `wanted` that follow, and more where the reader goes on from the last fetch."""
        end, before = self._ends.get(path, (number + 1, 0))
        ahead = 2 * before if end <= number <= end + near else 0
        count = max(1, min(max(wanted, ahead), MOST_BYTES // BLOCK_BYTES))
        start = number * BLOCK_BYTES
        data, size = self._fetch(path, start, count * BLOCK_BYTES)
        if len(data) != max(min(count * BLOCK_BYTES, size - start), 0):
            raise FormatError(f"{path}: {len(data)} bytes came where {size:,} in all were promised; try again")
        with self._lock:
            self._sizes[path] = size
            self._ends[path] = (number + count, count)
            for n in range(max(1, -(-len(data) // BLOCK_BYTES))):
                self._keep((path, number + n), data[n * BLOCK_BYTES : (n + 1) * BLOCK_BYTES])
        return data[:BLOCK_BYTES]

    def _keep(self, key: tuple[str, int], block: bytes) -> None:
        self._held += len(block) - len(self._blocks.pop(key, b""))
        self._blocks[key] = block
        while self._held > self._limit:
            self._held -= len(self._blocks.popitem(last=False)[1])


class FarFile:
    """An object as an open file (`random_access.OpenFile`). FileNotFoundError where there is none."""

    def __init__(self, cache: BlockCache, path: str, near: int = 0) -> None:
        """`near` as `BlockCache.read` takes it."""
        self._cache, self._path, self._near = cache, path, near
        self.size = cache.size(path)

    def read_at(self, start: int, length: int) -> bytes:
        """As `OpenFile.read_at`."""
        return self._cache.read(self._path, start, length, self._near)

    def expect(self, start: int, length: int) -> None:
        """As `OpenFile.expect`: nothing is fetched before it is read."""

    def __enter__(self) -> FarFile:
        return self

    def __exit__(self, *stopped: object) -> None:
        """Nothing is open."""


class FarArray:
    """A .npy file of one or two dimensions whose rows are fetched when they are asked for.

    A row's number and a slice of rows without a step fetch just these; anything else that numpy knows fetches all.
    """

    def __init__(self, cache: BlockCache, path: str) -> None:
        """`path`'s first 128 bytes have been looked at: they are a header as fgtrac writes it."""
        self._cache, self._path = cache, path
        header = io.BytesIO(cache.read(path, 8, NPY_HEADER_BYTES - 8))
        self.shape, _order, self.dtype = np.lib.format.read_array_header_1_0(header)
        self.ndim = len(self.shape)
        self._row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        self.nbytes, self.offset = self.shape[0] * self._row_bytes, NPY_HEADER_BYTES

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, (int, np.integer)):
            at = int(key) + (len(self) if key < 0 else 0)
            if not 0 <= at < len(self):
                raise IndexError(f"row {key} of {len(self)} in {self._path}")
            return self._rows(at, at + 1)[0]
        if isinstance(key, tuple) and isinstance(key[0], (int, np.integer)):
            return self[key[0]][key[1:]]
        if isinstance(key, slice) and key.step in (None, 1):
            start, stop, _step = key.indices(len(self))
            return self._rows(start, max(start, stop))
        return np.asarray(self)[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self._rows(0, len(self))
        return whole if dtype is None else whole.astype(dtype)

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        at = NPY_HEADER_BYTES + start * self._row_bytes
        data = self._cache.read(self._path, at, (stop - start) * self._row_bytes)
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])
