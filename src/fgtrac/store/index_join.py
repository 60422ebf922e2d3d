"""The last stage of an index that does not fit in memory: leaves in order become the columns' files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.store import durable
from fgtrac.store.index_register import NPY_HEADER_BYTES
from fgtrac.store.index_runs import Leaves, read_leaves, typed_keys
from fgtrac.tlog.index import CONTENT, KEY_BYTES
from fgtrac.tlog.index_stream import NodeStream
from fgtrac.tlog.npy import COLUMNS, npy_header

PIECE = 1 << 22  # bytes of values read at a time
_SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "keys": ("u1", (KEY_BYTES,)), "offsets": ("<u8", ()), "values": ("u1", ()), "digests": ("u1", (32,)),
    "nodes": ("u1", (32,)),
}  # fmt: skip


class Join:
    """Takes the leaves of the samples part by part, in order, then those of the contents, and writes the columns
    into a folder that has the samples' keys and, where they are kept, the values already."""

    def __init__(self, folder: Path, samples: int, row_bytes: int, contents: Sequence[Path]) -> None:
        self._folder, self._contents = folder, contents
        found = [(len(part.sizes), len(part.values)) for part in map(read_leaves, contents)]
        self.leaves = samples + sum(leaves for leaves, _ in found)
        self.taken = 0  # parts
        self._samples, self._row_bytes = samples, row_bytes
        self._at, self._offset = 0, 0  # leaves and bytes of values taken
        self._nodes = NodeStream(self.leaves)
        self._value_bytes = row_bytes + sum(values for _, values in found)
        rows = {"offsets": self.leaves + 1, "values": self._value_bytes, "nodes": self._nodes.nodes}
        self._headers = {name: _header(name, rows.get(name, self.leaves)) for name in COLUMNS}
        width = {name: np.dtype(kind).itemsize * prod(shape) for name, (kind, shape) in _SHAPES.items()}
        self.column_bytes = {name: NPY_HEADER_BYTES + width[name] * rows.get(name, self.leaves) for name in COLUMNS}
        self._values = hashlib.sha256(self._headers["values"])
        for name in ("offsets", "digests", "nodes"):
            durable.write_at(self._path(name), 0, [self._headers[name]], cut=True)
        self._write("offsets", 0, np.zeros(1, np.uint64))

    def take(self, leaves: Leaves, values: Path, offset: int) -> None:
        """The next leaves, whose values lie in a file from `offset` on."""
        self._take(leaves)
        left = int(leaves.sizes.sum())
        if left:
            with values.open("rb") as file:
                file.seek(offset)
                while left and (piece := file.read(min(left, PIECE))):
                    self._values.update(piece)
                    left -= len(piece)
        if left:
            raise OSError(
                f"{values.name} lost {left:,} bytes while the index was put together; the same command goes on"
            )

    def finish(self, *, keep: bool) -> tuple[bytes, dict[str, bytes]]:
        """The root, and the SHA-256 of each column's file, all of which (the values if kept) are on disk then."""
        for path in self._contents:
            part = read_leaves(path)
            self._write("keys", self._at, typed_keys(CONTENT, part.keys))
            if keep:
                self._write("values", self._offset, part.values)
            self._values.update(memoryview(np.array(part.values)))  # type: ignore[arg-type]
            self._take(part)
        durable.write_at(self._path("keys"), 0, [self._headers["keys"]])
        digests = {}
        for name in COLUMNS:
            if name == "values":
                digests[name] = self._values.digest()
                if keep:
                    durable.write_at(self._path(name), 0, [self._headers[name]])
                    durable.write_at(self._path(name), NPY_HEADER_BYTES + self._value_bytes, [], cut=True)
            else:
                with self._path(name).open("rb") as file:
                    digests[name] = hashlib.file_digest(file, "sha256").digest()
            if keep:
                durable.sync_file(self._path(name))
        return self._nodes.root(), digests

    def _take(self, leaves: Leaves) -> None:
        offsets = np.uint64(self._offset) + np.cumsum(leaves.sizes, dtype=np.uint64)
        self._write("offsets", self._at + 1, offsets)
        self._write("digests", self._at, leaves.digests)
        for first, hashes in self._nodes.add(leaves.hashes.tobytes()):
            durable.write_at(self._path("nodes"), NPY_HEADER_BYTES + first * 32, [hashes])
        self._at += len(leaves.sizes)
        self._offset += int(leaves.sizes.sum())
        self.taken += 1

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npy"

    def _write(self, name: str, first: int, array: NDArray[Any]) -> None:
        width = array[:1].nbytes if len(array) else 1
        flat = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        durable.write_at(self._path(name), NPY_HEADER_BYTES + first * width, [flat])


def _header(name: str, rows: int) -> bytes:
    """A column's header; none of the array it is of."""
    dtype, shape = _SHAPES[name]
    return npy_header(np.broadcast_to(np.zeros((), dtype), (rows, *shape)))
