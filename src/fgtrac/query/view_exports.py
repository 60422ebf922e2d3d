"""A table as a Parquet or a CSV file, piece by piece: what is in memory is one row group, however long the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

GROUP_ROWS = 1 << 18
GROUP_BYTES = 1 << 26
FORMULA = r"^[=+\-@\t\r]"  # what spreadsheets take for the beginning of a formula (OWASP, CSV injection)


class Told:
    """What is known of a table once it is written: `rows`, and `formulas`, the texts that a spreadsheet may take for
    formulas."""

    def __init__(self) -> None:
        self.rows = self.formulas = 0


def parquet_pieces(reader: pa.RecordBatchReader, metadata: Mapping[str, str], told: Told) -> Iterator[bytes]:
    """The bytes of a Parquet file of these rows, with `metadata` beside its schema."""
    sink = _Pieces()
    schema = reader.schema.with_metadata(dict(metadata))
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for table in _groups(reader):
            told.rows += len(table)
            writer.write_table(table.unify_dictionaries().replace_schema_metadata(dict(metadata)), len(table))
            yield sink.take()
    yield sink.take()


def csv_pieces(reader: pa.RecordBatchReader, told: Told, *, for_spreadsheets: bool) -> Iterator[bytes]:
    """The bytes of a CSV file (RFC 4180, UTF-8, lines that end in LF) of these rows under a heading. Texts stand in
    quotation marks, null is an empty field without them, a list is `[1,2]`. Every text is as it is, and those that a
    spreadsheet may take for a formula are counted; `for_spreadsheets` puts an apostrophe before each of them."""
    sink = _Pieces()
    schema = pa.schema([pa.field(field.name, _written(field.type)) for field in reader.schema])
    with pc_csv.CSVWriter(sink, schema) as writer:
        for table in _groups(reader):
            columns = [_plain(table.column(place), told, for_spreadsheets) for place in range(table.num_columns)]
            told.rows += len(table)
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            yield sink.take()
    yield sink.take()


class _Pieces:
    """A file for pyarrow that keeps what is written until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._waiting.append(piece)
        self._size += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        """What was written since the last time."""
        data = b"".join(self._waiting)
        self._waiting.clear()
        return data


def _groups(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The rows, GROUP_ROWS or GROUP_BYTES of them at a time, or a batch more."""
    waiting: list[pa.RecordBatch] = []
    for batch in reader:
        waiting.append(batch)
        if sum(map(len, waiting)) >= GROUP_ROWS or sum(one.nbytes for one in waiting) >= GROUP_BYTES:
            yield pa.Table.from_batches(waiting, schema=reader.schema)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting, schema=reader.schema)


def _written(type_: pa.DataType) -> pa.DataType:
    """The type under which a column stands in a CSV file."""
    is_text = pa.types.is_dictionary(type_) or pa.types.is_list(type_)
    return pa.string() if is_text else type_


def _plain(column: pa.ChunkedArray, told: Told, for_spreadsheets: bool) -> pa.ChunkedArray:
    """A column as CSV has it."""
    if pa.types.is_list(column.type):
        inside = pc.binary_join(column.cast(pa.list_(pa.string())), ",")
        return pc.binary_join_element_wise("[", inside, "]", "")
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    if not pa.types.is_string(column.type):
        return column
    risky = pc.fill_null(pc.match_substring_regex(column, FORMULA), False)
    count = pc.sum(risky).as_py() or 0
    told.formulas += count
    if not (for_spreadsheets and count):
        return column
    return pc.if_else(risky, pc.binary_join_element_wise("'", column, ""), column)
