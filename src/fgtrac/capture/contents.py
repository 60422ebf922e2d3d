"""Where a sample's content comes from: the source bytes of each row, and the source text of a function."""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from fgtrac.capture.hf_rows import is_hf_dataset, table_of
from fgtrac.capture.table_rows import digest_table
from fgtrac.capture.undigested import UndigestedError as UndigestedError
from fgtrac.capture.undigested import undigested
from fgtrac.errors import CaptureError
from fgtrac.events.codec import encode

PLAIN_KINDS = "biufcmMSU"  # numpy's kinds whose values are their bytes; long doubles have bytes that mean nothing
PIECE_BYTES = 1 << 20
LONG_BYTES = 1 << 11  # rows from this size on are hashed where they lie, shorter ones side by side with what precedes
THREADED_ROW, THREADED_BYTES = 1 << 13, 1 << 24  # rows and data of these sizes are hashed by two threads: shorter
# rows give the interpreter's lock back so often that two are slower than one (3 KB: 3.1 us a row, and 2.2)
MAX_THREADS = 2
FILES = ("Image", "Audio", "Video", "Pdf")  # what `datasets` calls columns whose cells are files
FIRST = 8  # listed texts are paths where one of so many is a file
WHOLE_FILE_BYTES = 1 << 20  # files up to this size are read in one go


def source_digests(
    data: Any, rows: int, source: Callable[[int], bytes] | None
) -> tuple[str | None, NDArray[np.uint8] | None]:
    """(rows, 32) uint8: SHA-256 of each row's source bytes, and what they are, or (None, None) where no source is
    known.

    Sources are what is there before any transform, and are not read through the data set: `source(row)`; of a
    pandas, polars or pyarrow table, or the Arrow table of a Dataset of `datasets`, its rows (docs/lineage.md); of a
    TensorDataset the first tensor, of a tensor or an array its rows, and of a data set in torchvision's style (one that
    has `targets` or `labels` beside it) its `data`, each as CBOR [dtype, shape, little-endian bytes]; the files that
    `samples` or `imgs` list, or `data` where these are paths. TypeError where `source` gives no bytes; UndigestedError
    for a dtype without canonical bytes, CaptureError for a file that cannot be read.
    """
    if source is not None:
        return "source", stacked([_source_digest(source, row) for row in range(rows)])
    if (table := digest_table(files_digested(data) if is_hf_dataset(data) else data)) is not None:
        return f"table {table[0]}", table[1]
    if isinstance(data, TensorDataset):
        return _of_rows(data.tensors[0])
    if isinstance(data, torch.Tensor | np.ndarray):
        return _of_rows(data)
    if (paths := listed_files(data, rows)) is not None:
        return "file", stacked([file_digest(path) for path in paths])
    values = labelled_rows(data, rows)
    return (None, None) if values is None else _of_rows(values)


def _of_rows(values: torch.Tensor | NDArray[Any]) -> tuple[str, NDArray[np.uint8]]:
    digests = row_digests(values)
    return described(values), digests


def described(values: torch.Tensor | NDArray[Any]) -> str:
    """What the digests of rows are of: rows of another dtype or shape have others, whatever they hold."""
    name = values.dtype.name if isinstance(values, np.ndarray) else str(values.dtype).removeprefix("torch.")
    return f"tensor {name} {'x'.join(map(str, values.shape[1:]))}".rstrip()


def files_digested(data: Any) -> Any:
    """The table behind a Dataset of `datasets`, with SHA-256 of the file in the place of images, sounds and films, also
    in lists and records: its name says nothing of what is in it, and it may lie in the table or beside it."""
    table, pyarrow = table_of(data), sys.modules["pyarrow"]
    for place, name in enumerate(table.column_names):
        feature, column = data.features[name], table.column(name)
        if _has_files(feature):
            cells = [_files_in(pyarrow, feature, chunk) for chunk in column.chunks]
            table = table.set_column(place, name, pyarrow.chunked_array(cells))
    return table


def _has_files(feature: Any) -> bool:
    return type(feature).__name__ in FILES or any(map(_has_files, _inner(feature).values()))


def _inner(feature: Any) -> dict[str, Any]:
    """The features inside one: those of a record by name, that of a list's items under no name."""
    if isinstance(feature, Mapping):
        return dict(feature)
    items = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    if type(feature).__name__ == "Sequence" and isinstance(items, Mapping):  # before datasets 4: a record of lists
        return {name: [item] for name, item in items.items()}
    return {} if items is None else {"": items}


def _files_in(pyarrow: Any, feature: Any, array: Any) -> Any:
    """An Arrow array with SHA-256 in the place of each file."""
    if type(feature).__name__ in FILES:
        return pyarrow.array([_file_in_cell(cell.as_py()) for cell in array], pyarrow.binary())
    if not _has_files(feature):
        return array
    inner, nulls = _inner(feature), array.is_null()
    if pyarrow.types.is_struct(array.type):
        names = [array.type[n].name for n in range(array.type.num_fields)]
        fields = [_files_in(pyarrow, inner[name], field) for name, field in zip(names, array.flatten(), strict=True)]
        return pyarrow.StructArray.from_arrays(fields, names, mask=nulls)
    sizes = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    offsets = pyarrow.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    return pyarrow.LargeListArray.from_arrays(offsets, _files_in(pyarrow, inner[""], array.flatten()), mask=nulls)


def _file_in_cell(cell: Mapping[str, Any] | None) -> bytes | None:
    if cell is None:
        return None
    if cell["bytes"] is not None:
        return hashlib.sha256(cell["bytes"]).digest()
    if not os.path.isfile(cell["path"] or ""):
        raise undigested(f"a file that is neither in the table nor at {cell['path']!r:.200}")
    return file_digest(Path(cell["path"]))


def row_digests(values: torch.Tensor | NDArray[Any]) -> NDArray[np.uint8]:
    """The digests of the rows of a tensor or an array (n, ...), a tensor's and an equal array's being the same."""
    return tensor_digests(values) if isinstance(values, torch.Tensor) else array_digests(values)


def tensor_digests(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """(n, 32) uint8: SHA-256 over the canonical CBOR [dtype, shape, little-endian bytes] of each row of `tensor`
    (n, ...). UndigestedError for a tensor that is sparse, quantized, nested, or has no values."""
    name, shape = str(tensor.dtype).removeprefix("torch."), list(tensor.shape[1:])
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta:
        what = "quantized" if tensor.is_quantized else "meta" if tensor.is_meta else str(tensor.layout)
        raise undigested(f"a {what.removeprefix('torch.')} tensor of {name}")

    def octets(start: int, stop: int) -> NDArray[np.uint8]:
        part = tensor[start:stop].detach().resolve_conj().resolve_neg().cpu().contiguous()
        return part.reshape(-1).view(torch.uint8).numpy()

    return _digests_of_rows(name, shape, len(tensor), tensor.element_size(), octets)


def array_digests(array: NDArray[Any]) -> NDArray[np.uint8]:
    """`tensor_digests` of an array, read piece by piece, as one on disk should be. UndigestedError for an array of
    objects, records, or long doubles."""
    dtype = array.dtype
    if dtype.kind not in PLAIN_KINDS or dtype.char in "gG":
        raise undigested(f"an array of {dtype}")
    little = dtype.newbyteorder("<")

    def octets(start: int, stop: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(array[start:stop], dtype=little).reshape(-1).view(np.uint8)

    return _digests_of_rows(dtype.name, list(array.shape[1:]), len(array), dtype.itemsize, octets)


def _digests_of_rows(
    dtype: str, shape: list[int], rows: int, item_bytes: int, octets: Callable[[int, int], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """`octets(start, stop)` gives the bytes of these rows, end to end."""
    size = item_bytes * int(np.prod(shape, dtype=np.int64))
    whole = encode([dtype, shape, bytes(size)])
    front = whole[: len(whole) - size]
    width, step, sha256 = len(whole), max(1, PIECE_BYTES // len(whole)), hashlib.sha256

    def digest_short(start: int, stop: int) -> list[bytes]:
        piece = np.empty((stop - start, width), dtype=np.uint8)
        piece[:, : len(front)] = np.frombuffer(front, dtype=np.uint8)
        if size:
            piece[:, len(front) :] = octets(start, stop).reshape(len(piece), size)
        view = piece.reshape(-1).data
        return [sha256(view[at : at + width]).digest() for at in range(0, len(view), width)]

    def digest_long(start: int, stop: int) -> list[bytes]:
        view, begin = octets(start, stop).data, sha256(front).copy
        digests: list[bytes] = []
        take = digests.append
        for at in range(0, len(view), size):
            state = begin()
            state.update(view[at : at + size])
            take(state.digest())
        return digests

    def fill(begin: int, end: int) -> None:
        for start in range(begin, end, step):
            stop = min(start + step, end)
            out[start:stop] = stacked(digest(start, stop))

    digest = digest_long if size >= LONG_BYTES else digest_short
    out = np.empty((rows, 32), dtype=np.uint8)
    is_slow = size >= THREADED_ROW and rows * size >= THREADED_BYTES
    threads = min(MAX_THREADS, os.cpu_count() or 1) if is_slow else 1
    bounds = [rows * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as others:  # hashlib lets go of the interpreter while it digests a long row
        parts = [others.submit(fill, *part) for part in pairwise(bounds[1:])]
        fill(*bounds[:2])
        for part in parts:
            part.result()
    return out


def stacked(digests: Sequence[bytes]) -> NDArray[np.uint8]:
    """Digests of 32 bytes as one (n, 32) uint8 array."""
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's bytes. CaptureError names the file that cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size <= WHOLE_FILE_BYTES:
                return hashlib.sha256(file.readall()).digest()
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise CaptureError(
            f"the source file {path} cannot be read ({error}); repair it or pass content=False"
        ) from error


def code_digest(function: Callable[..., Any]) -> bytes | None:
    """SHA-256 of a function's source text (of a lambda's own, not of the line that it stands in), or None where Python
    does not have it."""
    try:
        source = _source_of_lambda(function) if _is_lambda(function) else inspect.getsource(function)
    except (OSError, TypeError, SyntaxError, ValueError):
        return None  # a builtin or something typed at a prompt: the entry then has no code digest
    return None if source is None else hashlib.sha256(source.encode()).digest()


def _is_lambda(function: Any) -> bool:
    return inspect.isfunction(function) and function.__code__.co_name == "<lambda>"


def _source_of_lambda(function: Any) -> str | None:
    """The text of a lambda, told from others of its line by the place of its body; None where that is not known."""
    lines, _ = inspect.findsource(function)
    text, code = "".join(lines), function.__code__
    bodies = {(*place[:1], *place[2:]) for place in code.co_positions() if None not in place}
    found = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Lambda)
        and (node.body.lineno, node.body.col_offset, node.body.end_col_offset) in bodies
        and node.lineno == code.co_firstlineno
    ]
    return ast.get_source_segment(text, found[0]) if len(found) == 1 else None


def _source_digest(source: Callable[[int], bytes], row: int) -> bytes:
    octets = source(row)
    if not isinstance(octets, bytes | bytearray | memoryview):
        raise TypeError(f"source({row}) gave a {type(octets).__name__}; it gives the bytes of the row's source")
    return hashlib.sha256(octets).digest()


def _held(data: Any) -> dict[str, Any]:
    """The attributes that the object itself holds: a property may compute, draw random numbers, or warn."""
    return getattr(data, "__dict__", {})


def _has_length(values: Any, rows: int) -> bool:
    return hasattr(values, "__len__") and not (hasattr(values, "ndim") and not values.ndim) and len(values) == rows


def labelled_rows(data: Any, rows: int) -> torch.Tensor | NDArray[Any] | None:
    """The `data` of a data set in torchvision's style; None for any other."""
    held = _held(data)
    values = held.get("data")
    is_labelled = any(_has_length(held.get(name), rows) for name in ("targets", "labels"))
    if is_labelled and isinstance(values, torch.Tensor | np.ndarray) and _has_length(values, rows):
        return values
    return None


def listed_files(data: Any, rows: int) -> list[Path] | None:
    """The file of each row that a data set lists as (path, ...), or as a path; None where it lists no files."""
    held = _held(data)
    for name in ("samples", "imgs", "data"):
        listed = held.get(name)
        if not (isinstance(listed, list | tuple) and listed and len(listed) == rows):
            continue
        paths = [item[0] if isinstance(item, tuple | list) and item else item for item in listed]
        if all(isinstance(p, str | os.PathLike) for p in paths) and any(map(os.path.isfile, paths[:FIRST])):
            return [Path(p) for p in paths]
    return None
