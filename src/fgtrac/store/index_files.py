"""The index on disk: five memory-mappable .npy columns of one full seal, written and read."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.store import durable
from fgtrac.tlog.index import Columns, Tree

COLUMNS = ("keys", "offsets", "values", "digests", "nodes")
_SHAPES = {
    "keys": ("u1", 33),
    "offsets": ("<u8", 0),
    "values": ("u1", 0),
    "digests": ("u1", 32),
    "nodes": ("u1", 32),
}


def column_path(size: int, column: str) -> str:
    """Where a column of the index sealed at `size` lies."""
    return f"index/{size}/{column}.npy"


def arrays_of(tree: Tree) -> dict[str, NDArray[np.generic]]:
    """The columns by name."""
    columns = tree.columns
    return {
        "keys": columns.keys,
        "offsets": columns.offsets,
        "values": columns.values,
        "digests": tree.digests,
        "nodes": tree.nodes,
    }


def npy_header(array: NDArray[np.generic]) -> bytes:
    """The header of a version 1.0 .npy file (numpy.lib.format)."""
    out = io.BytesIO()
    fields = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    }
    np.lib.format.write_array_header_1_0(out, fields)
    return out.getvalue()


def _flat(array: NDArray[np.generic]) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def column_digests(tree: Tree) -> dict[str, bytes]:
    """The SHA-256 that each column's file has, or will have."""
    digests = {}
    for name, array in arrays_of(tree).items():
        digest = hashlib.sha256(npy_header(array))
        digest.update(_flat(array))
        digests[name] = digest.digest()
    return digests


def write_index(root: Path, size: int, tree: Tree) -> None:
    """Write every column of the index sealed at `size`."""
    for name, array in arrays_of(tree).items():
        durable.write_file(root / column_path(size, name), (npy_header(array), _flat(array)))


def load_index(mapped: Callable[[str], NDArray[np.generic]], size: int, root: bytes) -> Tree:
    """The tree of the full seal at `size`, memory-mapped; nothing in it is believed before it is proved.

    FormatError where a column has another type or length than the others ask for.
    """
    arrays = {name: mapped(column_path(size, name)) for name in COLUMNS}
    for name, (dtype, width) in _SHAPES.items():
        array = arrays[name]
        if array.dtype != np.dtype(dtype) or array.ndim != (2 if width else 1) or (width and array.shape[1] != width):
            raise FormatError(f"{column_path(size, name)} holds {array.dtype} {array.shape}; fgtrac seal rebuilds it")
    n = len(arrays["keys"])
    expected = {"offsets": n + 1, "digests": n, "nodes": sum(n >> level for level in range(64))}
    for name, length in expected.items():
        if len(arrays[name]) != length:
            raise FormatError(f"{column_path(size, name)} has {len(arrays[name])} rows and {n} keys ask for {length}")
    columns = Columns(arrays["keys"], arrays["offsets"], arrays["values"])  # type: ignore[arg-type]
    return Tree(columns, arrays["digests"], arrays["nodes"], root)  # type: ignore[arg-type]
