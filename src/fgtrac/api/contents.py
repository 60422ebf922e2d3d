"""The contents that a person names, and the digests of their sources: a file's bytes, or a row of an array."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.events.codec import encode


def source_digest(text: str) -> tuple[str, str, bytes]:
    """A content's name in words, what a `dataset` entry calls such a source, and its SHA-256, of `file:PATH` or
    `row:FILE.npy:INDEX`.

    A row's source is the CBOR of [dtype, shape, little-endian bytes], as of the first tensor of a TensorDataset.
    FileNotFoundError for a file that is not there, FormatError for one that is no array, ValueError for a row that the
    array does not have, or a name of another form.
    """
    if text.startswith("file:"):
        path = _existing(text.removeprefix("file:"))
        with path.open("rb") as file:
            return f"file {path.name}", "file", hashlib.file_digest(file, "sha256").digest()
    named, _, index = text.removeprefix("row:").rpartition(":")
    if not named or not (index.isascii() and index.isdigit() and len(index) < 20):
        raise ValueError(f"{text!r:.80} names no row of an array; write row:FILE.npy:INDEX")
    path = _existing(named)
    return f"row {int(index)} of {path.name}", *_row_source(path, int(index))


def _existing(named: str) -> Path:
    path = Path(named)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path


def _row_source(path: Path, index: int) -> tuple[str, bytes]:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        raise FormatError(f"{path} is no .npy file of plain numbers: {error}") from error
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{path} holds {array.dtype}; the source of a row is an array of numbers")
    if array.ndim == 0 or index >= len(array):
        raise ValueError(f"{path} has the shape {array.shape}, and so no row {index}")
    return array_source(array[index])


def array_source(row: NDArray[Any]) -> tuple[str, bytes]:
    """What a `dataset` entry calls contents like this row of an array (`tensor float32 3x32x32`), and SHA-256 of its
    source: the CBOR of [dtype, shape, little-endian bytes]. ValueError for a dtype that is no plain number's."""
    if row.dtype.kind not in "biufc" or row.dtype.char in "gG":
        raise ValueError(f"{row.dtype} has no canonical bytes; the source of a row is an array of numbers")
    row = np.asarray(row)
    little = row.astype(row.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(encode([row.dtype.name, list(row.shape), little.tobytes()])).digest()
    return f"tensor {row.dtype.name} {'x'.join(map(str, row.shape))}".rstrip(), digest
