"""Content digests of a table's rows: the same whether pandas, polars or pyarrow holds it (docs/lineage.md).

A row's source is SHA-256 of the schema, CBOR ["fgtrac table v1", [[column, kind], ...]], and then its cells. A cell is
01 and its value, or 00 and the value's zero (nothing, where its length varies) for null. Rows go through Arrow's
columns, and only their hashing is done row by row.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.arrow_tables import ArrowTables
from fgtrac.capture.pandas_frames import PandasFrames
from fgtrac.capture.polars_frames import PolarsFrames, eager
from fgtrac.capture.python_cells import mixed_kinds
from fgtrac.capture.undigested import undigested
from fgtrac.events.codec import encode

PIECE_ROWS = 1 << 16
NANOSECONDS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # units of a second
Matrix = NDArray[np.uint8]  # (rows, bytes of each cell)


def table_digests(data: Any) -> NDArray[np.uint8] | None:
    """(n, 32) uint8: SHA-256 of each row's source; None for what is no table, and where pyarrow is not installed.
    UndigestedError names a column whose type has no canonical bytes."""
    found = digest_table(data)
    return None if found is None else found[1]


def digest_table(data: Any) -> tuple[str, NDArray[np.uint8]] | None:
    """The first 16 hex digits of the schema's SHA-256, without which no two rows are equal, and `table_digests`."""
    if not any(kind.owns(data) for kind in (PandasFrames, PolarsFrames, ArrowTables)):
        return None
    try:
        import pyarrow as pa
    except ImportError:
        return None
    names, columns = _columns(pa, data)
    said = [_said(pa, name, column.type) for name, column in zip(names, columns, strict=True)]
    schema = hashlib.sha256(encode(["fgtrac table v1", said]))
    front = np.frombuffer(schema.digest(), dtype=np.uint8)
    digests: list[bytes] = []
    rows = len(columns[0]) if columns else len(data)
    for start in range(0, rows, PIECE_ROWS):
        some = min(PIECE_ROWS, rows - start)
        parts = [np.broadcast_to(front, (some, 32))]
        for name, column in zip(names, columns, strict=True):
            with _as_undigested(pa, name, column.type):
                parts += _cells(pa, _whole(pa, column.slice(start, some)))
        digests += _hashes(_joined(pa, parts))
    return schema.hexdigest()[:16], np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


def _columns(pa: Any, data: Any) -> tuple[list[Any], list[Any]]:
    if PandasFrames.owns(data):
        names = list(data.columns)
        return names, [_of_pandas(pa, data.iloc[:, n], name) for n, name in enumerate(names)]
    if PolarsFrames.owns(data):
        frame = eager(data)
        return list(frame.columns), [_of_polars(pa, frame[name]) for name in frame.columns]
    return list(data.column_names), list(data.columns)


def _said(pa: Any, name: Any, of: Any) -> list[Any]:
    """What the schema says of a column: its name and its kind."""
    with _as_undigested(pa, name, of):
        said = [_written(name), _kind(pa, of, name)]
        encode(said)
    return said


def _written(name: Any) -> Any:
    """A column's name in the schema: text, a whole number, a list for a tuple, or {type: text} for anything else."""
    if isinstance(name, str):
        return name
    if isinstance(name, int | np.integer) and not isinstance(name, bool) and -(1 << 63) <= name < 1 << 63:
        return int(name)
    return list(map(_written, name)) if isinstance(name, tuple) else {type(name).__name__: str(name)}


@contextmanager
def _as_undigested(pa: Any, name: Any, of: Any) -> Iterator[None]:
    """What Arrow refuses inside has no canonical bytes."""
    try:
        yield
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise undigested(f"column {name!r:.60} of {of}") from error


def _of_pandas(pa: Any, series: Any, name: Any) -> Any:
    objects = series.cat.categories if hasattr(series, "cat") else series
    if objects.dtype == object and (kinds := mixed_kinds(objects, sys.modules["pandas"].isna)):
        raise undigested(f"column {name!r:.60} of {series.dtype}, with {' and '.join(kinds)} in it,")
    with _as_undigested(pa, name, series.dtype):
        return pa.array(series, from_pandas=True)  # NaN is pandas' missing value


def _of_polars(pa: Any, series: Any) -> Any:
    if series.dtype == sys.modules["polars"].Object:  # Arrow would get addresses
        raise undigested(f"column {series.name!r:.60} of {series.dtype}")
    with _as_undigested(pa, series.name, series.dtype):
        return series.to_arrow()


def _kind(pa: Any, of: Any, name: Any) -> Any:
    """What the schema says of a type: widths do not matter, signs and zones do."""
    t = pa.types
    simple = (
        (t.is_null, "null"), (t.is_boolean, "bool"), (t.is_uint64, "uint"), (t.is_integer, "int"),
        (t.is_floating, "float"), (t.is_date, "date"), (t.is_time, "time"), (t.is_duration, "duration"),
        (t.is_decimal, "decimal"),
    )  # fmt: skip
    for is_of, kind in simple:
        if is_of(of):
            return kind
    if t.is_timestamp(of):
        return "wall clock" if of.tz is None else "instant"
    if _is_text(pa, of):
        return "text"
    if _is_octets(pa, of):
        return "bytes"
    if t.is_dictionary(of):
        return _kind(pa, of.value_type, name)
    if _is_list(pa, of):
        return ["list", _kind(pa, of.value_type, name)]
    if t.is_struct(of):
        return ["struct", [[of[n].name, _kind(pa, of[n].type, name)] for n in range(of.num_fields)]]
    if isinstance(of, pa.BaseExtensionType):
        said = of.__arrow_ext_serialize__() if hasattr(of, "__arrow_ext_serialize__") else str(of)
        return ["extension", of.extension_name, said, _kind(pa, of.storage_type, name)]
    raise undigested(f"column {name!r:.60} of {of}")


def _cells(pa: Any, array: Any) -> list[Any]:
    """The cells of an Arrow array as parts to be joined, each a Matrix or a large binary array."""
    import pyarrow.compute as pc

    of, t = array.type, pa.types
    if isinstance(of, pa.BaseExtensionType):
        return _cells(pa, array.storage)
    if t.is_dictionary(of):
        return _cells(pa, array.dictionary_decode())
    there = array.is_valid().to_numpy(zero_copy_only=False)
    if t.is_null(of):
        return [_bytes_of(there)]
    if t.is_struct(of):
        return [_bytes_of(there), *(part for field in array.flatten() for part in _cells(pa, field))]
    if _is_list(pa, of):
        sizes = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype("<i8")
        items = _joined(pa, _cells(pa, pc.list_flatten(array)))
        offsets = _offsets(items)[np.concatenate([[0], np.cumsum(sizes)])]
        return [_bytes_of(there), _bytes_of(sizes), _binary(pa, offsets, items.buffers()[2])]
    if t.is_decimal(of):
        array = array.cast(pa.string())
    if _is_text(pa, array.type) or _is_octets(pa, array.type):
        wide = pa.large_string() if _is_text(pa, array.type) else pa.large_binary()
        values = pc.fill_null(array.cast(wide), "" if wide == pa.large_string() else b"").cast(pa.large_binary())
        return [_bytes_of(there), _bytes_of(np.diff(_offsets(values)).astype("<i8")), values]
    return [_bytes_of(there), *map(_bytes_of, _numbers(pa, array))]


def _numbers(pa: Any, array: Any) -> list[NDArray[Any]]:
    """The values of a type of one width, 0 for null, as little-endian columns."""
    of, t = array.type, pa.types
    if t.is_floating(of):
        values = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0  # -0.0 becomes 0.0
        return [np.where(np.isnan(values), np.nan, values).astype("<f8")]
    if t.is_boolean(of):
        return [array.fill_null(False).to_numpy(zero_copy_only=False).astype(np.uint8)]
    if t.is_uint64(of):
        return [array.fill_null(0).to_numpy(zero_copy_only=False).astype("<u8")]
    if t.is_date(of):
        array = array.cast(pa.date32()).cast(pa.int32())
    elif t.is_time(of):
        array = array.cast(pa.time64("ns")).cast(pa.int64())
    elif t.is_timestamp(of) or t.is_duration(of):
        a_second, ticks = NANOSECONDS[of.unit], array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return [(ticks // a_second).astype("<i8"), (ticks % a_second * (10**9 // a_second)).astype("<i8")]
    return [array.fill_null(0).to_numpy(zero_copy_only=False).astype("<i8")]


def _is_text(pa: Any, of: Any) -> bool:
    return bool(pa.types.is_string(of) or pa.types.is_large_string(of) or of == pa.string_view())


def _is_octets(pa: Any, of: Any) -> bool:
    t = pa.types
    return bool(t.is_binary(of) or t.is_large_binary(of) or t.is_fixed_size_binary(of) or of == pa.binary_view())


def _is_list(pa: Any, of: Any) -> bool:
    t = pa.types
    return bool(t.is_list(of) or t.is_large_list(of) or t.is_fixed_size_list(of))


def _whole(pa: Any, column: Any) -> Any:
    """One array of a column that may be in chunks."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _bytes_of(values: NDArray[Any]) -> Matrix:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.dtype.itemsize)


def _joined(pa: Any, parts: Sequence[Any]) -> Any:
    """The parts of each row end to end, as a large binary array: neighbouring matrices by numpy, the rest by Arrow."""
    import pyarrow.compute as pc

    joined: list[Any] = []
    for part in parts:
        if isinstance(part, np.ndarray) and joined and isinstance(joined[-1], list):
            joined[-1].append(part)
        else:
            joined.append([part] if isinstance(part, np.ndarray) else part)
    arrays = [_of_matrix(pa, np.concatenate(part, axis=1)) if isinstance(part, list) else part for part in joined]
    return arrays[0] if len(arrays) == 1 else pc.binary_join_element_wise(*arrays, pa.scalar(b"", pa.large_binary()))


def _of_matrix(pa: Any, matrix: Matrix) -> Any:
    rows, width = matrix.shape
    return _binary(pa, np.arange(rows + 1, dtype=np.int64) * width, pa.py_buffer(np.ascontiguousarray(matrix)))


def _binary(pa: Any, offsets: NDArray[np.int64], values: Any) -> Any:
    where = pa.py_buffer(np.ascontiguousarray(offsets, dtype=np.int64))
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, [None, where, values])


def _offsets(array: Any) -> NDArray[np.int64]:
    """Where each cell of a large binary array begins, and the last one ends."""
    found = np.frombuffer(array.buffers()[1], dtype=np.int64)
    return found[array.offset : array.offset + len(array) + 1]


def _hashes(rows: Any) -> list[bytes]:
    octets, where, sha256 = memoryview(rows.buffers()[2]), _offsets(rows).tolist(), hashlib.sha256
    return [sha256(octets[a:b]).digest() for a, b in pairwise(where)]
