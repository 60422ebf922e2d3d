"""Views as Parquet: the one place that knows pyarrow. A file is written row group by row group and never held whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fgtrac.query.view_schema import VIEWS, Column
from fgtrac.store import durable
from fgtrac.store.durable import TEMPORARY, AppendFile

GROUP_ROWS = 1 << 18  # rows of a row group at most
GROUP_BYTES = 1 << 26  # of rows that wait for their row group
_WRITE_BYTES = 1 << 20
_PIECES = 1024  # that wait side by side; each takes a few KB beside its rows
_MANY_VALUES = frozenset({"sample", "id", "subject", "content", "score", "weight", "value", "outputs"})  # no dictionary
_SOUGHT = frozenset({"sample", "id", "entry", "step", "epoch", "number"})  # whose extremes tell what need not be read
_WORD = pa.dictionary(pa.int32(), pa.string())
_ARROW = {
    "u2": pa.uint16(), "u4": pa.uint32(), "u8": pa.uint64(), "f4": pa.float32(), "f8": pa.float64(),
    "bool": pa.bool_(), "text": pa.string(), "word": _WORD, "hex": pa.string(), "time": pa.timestamp("us"),
    "f4s": pa.list_(pa.float32()), "f8s": pa.list_(pa.float64()),
}  # fmt: skip
_HEX: NDArray[np.uint16] = np.frombuffer(b"".join(b"%02x" % n for n in range(256)), dtype="<u2")


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of a view's columns."""
    return pa.schema([pa.field(column.name, _ARROW[column.type]) for column in columns])


def words(codes: NDArray[Any], texts: Sequence[str]) -> pa.Array:
    """Codes (n,) as the texts that they are places of; null where a code is below 0."""
    indices = codes.astype(np.int32)
    missing = indices < 0
    places = pa.array(indices, mask=missing if missing.any() else None)
    return pa.DictionaryArray.from_arrays(places, pa.array(list(texts), pa.string()))


def hexes(rows: NDArray[np.uint8], missing: NDArray[np.bool_] | None = None) -> pa.Array:
    """Bytes (n, k) as hex digits; null where `missing`."""
    n, k = rows.shape
    digits = _HEX[np.ascontiguousarray(rows)].tobytes()
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(2 * k)
    whole = pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(digits))
    if missing is None or not missing.any():
        return whole
    return pc.if_else(pa.array(~missing), whole, pa.scalar(None, pa.string()))


def optional(values: NDArray[Any], missing: NDArray[np.bool_]) -> pa.Array:
    """Numbers (n,), null where `missing`."""
    return pa.array(values, mask=missing)


def lists(values: NDArray[Any]) -> pa.Array:
    """Rows (n, m) of numbers as n lists."""
    n, m = values.shape
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * np.int32(m)), flat)


class _Sink:
    """A file for pyarrow that grows through `durable`, and is hashed as it does."""

    closed = False

    def __init__(self, path: Path) -> None:
        self._file, self._waiting = AppendFile(path), bytearray()
        self.size, self.digest = 0, hashlib.sha256()

    def write(self, data: Any) -> int:
        piece = memoryview(data)
        self._waiting += piece
        self.size += piece.nbytes
        if len(self._waiting) >= _WRITE_BYTES:
            self.flush()
        return piece.nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        if self._waiting:
            data = bytes(self._waiting)
            self.digest.update(data)
            self._file.append(data)
            self._waiting.clear()

    def close(self) -> None:
        if not self.closed:
            self.flush()
            self.abandon()

    def abandon(self) -> None:
        self.closed = True
        self._file.close()


class ViewFile:
    """A view, or a piece of one, that is being written: rows come in pieces, in columns of equal length. It gets its
    name when it is whole."""

    def __init__(self, path: Path, view: str, thread: ThreadPoolExecutor) -> None:
        """`thread` encodes the rows beside whoever makes them; one row group waits for it at most."""
        self.view, self.rows = view, 0
        self._path, self._written = path, path.with_name(f"{path.name}.{os.urandom(8).hex()}{TEMPORARY}")
        self._schema = schema_of(VIEWS[view])
        self._sink = _Sink(self._written)
        names = [column.name for column in VIEWS[view]]
        self._writer = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="lz4",
            use_dictionary=[name for name in names if name not in _MANY_VALUES],
            write_statistics=[name for name in names if name in _SOUGHT],
        )
        self._thread, self._under_way = thread, Future[None]()
        self._under_way.set_result(None)
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0

    def add(self, **columns: Any) -> None:
        """Take rows: numpy arrays, lists or Arrow arrays by the column's name. A row group goes to disk at a time."""
        arrays = [self._array(columns[field.name], field.type) for field in self._schema]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        self._waiting.append(table)
        self._waiting_rows += len(table)
        self._waiting_bytes += table.nbytes
        if self._waiting_rows >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self.write()
        elif len(self._waiting) >= _PIECES:
            self._waiting = [pa.concat_tables(self._waiting).unify_dictionaries().combine_chunks()]

    def write(self) -> None:
        """Make a row group of what has been added."""
        if self._waiting_rows:
            table = pa.concat_tables(self._waiting)
            self._under_way.result()
            self._under_way = self._thread.submit(self._encode, table)
            self.rows += len(table)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    @property
    def has_rows(self) -> bool:
        """Whether any came."""
        return bool(self.rows or self._waiting_rows)

    def close(self) -> dict[str, Any]:
        """Finish the file: what the manifest says of it."""
        self.write()
        self._under_way.result()
        self._writer.close()
        self._sink.close()
        durable.rename(self._written, self._path)
        said = {"name": self._path.name, "rows": self.rows}
        return {**said, "size": self._sink.size, "sha256": self._sink.digest.hexdigest()}

    def abandon(self) -> None:
        """Let go of a file, whether or not it was finished."""
        wait([self._under_way])
        self._sink.abandon()
        durable.remove(self._written)

    def _encode(self, table: pa.Table) -> None:
        self._writer.write_table(table.unify_dictionaries(), row_group_size=GROUP_ROWS)

    @staticmethod
    def _array(values: Any, wanted: pa.DataType) -> pa.Array:
        if isinstance(values, pa.Array):
            return values if values.type == wanted else values.cast(wanted)
        if isinstance(values, np.ndarray) and wanted == pa.timestamp("us"):
            return pa.array(values.astype("datetime64[us]"))
        return pa.array(values, type=wanted)


def batches_of(paths: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    """The rows of files, one after the other, a piece at a time."""
    for path in paths:
        with pq.ParquetFile(path, memory_map=True) as file:
            yield from file.iter_batches(batch_size=1 << 16)


def columns_of(
    paths: Iterable[Path], names: Sequence[str], missing: int = 0, within: range | None = None
) -> Iterator[dict[str, Any]]:
    """Some columns of files, a row group at a time: numbers (n,), `missing` in the place of null, and of a column of
    words their codes (n,), -1 for null, and the words. With `within`, only row groups whose first column begins there.
    """
    for path in paths:
        with pq.ParquetFile(path, memory_map=True) as file:
            for group in range(file.num_row_groups):
                least = file.metadata.row_group(group).column(0).statistics
                if within is None or (least is not None and least.has_min_max and least.min in within):
                    table = file.read_row_group(group, list(names)).unify_dictionaries().combine_chunks()
                    yield {name: _plain(table.column(name), missing) for name in names}


def _plain(column: pa.ChunkedArray, missing: int) -> Any:
    if pa.types.is_dictionary(column.type):
        cells = column.combine_chunks()
        codes = pc.fill_null(cells.indices, -1).to_numpy(zero_copy_only=False)
        return codes, cells.dictionary.to_pylist()
    return (pc.fill_null(column, missing) if column.null_count else column).to_numpy()


def reader_of(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatchReader:
    """Batches as a stream that other libraries take."""
    return pa.RecordBatchReader.from_batches(schema, batches)


def narrow(reader: pa.RecordBatchReader, sums: Sequence[int]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """A reader's schema and batches, the columns at `sums` (DuckDB's sums of integers, of 128 bits) as int64. The
    batches raise ValueError where a sum has no room there."""
    schema = reader.schema
    for place in sums:
        schema = schema.set(place, schema.field(place).with_type(pa.int64()))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            try:
                yield batch.cast(schema) if sums else batch
            except pa.ArrowInvalid as error:
                raise ValueError(f"SQL: a sum or HUGEINT is beyond 64 bits ({error}); cast it to DOUBLE") from error

    return schema, batches()


def names_table(names: Mapping[str, Sequence[Any]], columns: Sequence[Column]) -> pa.Table:
    """Columns in memory as a table."""
    return pa.table({c.name: pa.array(names[c.name], pa.string()) for c in columns})
