"""The index on disk: five memory-mappable .npy columns of one full seal, written and read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.store import durable
from fgtrac.tlog.index import Columns, Tree
from fgtrac.tlog.npy import COLUMNS, arrays_of, column_path, flat_bytes, npy_header

_SHAPES = {
    "keys": ("u1", 33),
    "offsets": ("<u8", 0),
    "values": ("u1", 0),
    "digests": ("u1", 32),
    "nodes": ("u1", 32),
}


def write_index(root: Path, size: int, tree: Tree) -> None:
    """Write every column of the index sealed at `size`."""
    for name, array in arrays_of(tree).items():
        durable.write_file(root / column_path(size, name), (npy_header(array), flat_bytes(array)))


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
