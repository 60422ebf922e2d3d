"""The index as files: its columns' names and paths, and the bytes of each as a version 1.0 .npy file."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from numpy.typing import NDArray

from fgtrac.tlog.index import Tree

COLUMNS = ("keys", "offsets", "values", "digests", "nodes")


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


def flat_bytes(array: NDArray[np.generic]) -> memoryview:
    """What follows the header: the array's bytes, row major."""
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def column_digests(tree: Tree) -> dict[str, bytes]:
    """The SHA-256 that each column's file has, or will have."""
    digests = {}
    for name, array in arrays_of(tree).items():
        digest = hashlib.sha256(npy_header(array))
        digest.update(flat_bytes(array))
        digests[name] = digest.digest()
    return digests
