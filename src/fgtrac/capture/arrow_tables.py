"""pyarrow tables as the stages of tables take them. pyarrow is looked up where it is loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.row_numbers import Numbers, of_values

HOW = {"inner": "inner", "left": "left outer", "right": "right outer", "outer": "full outer"}


class ArrowTables:
    """What `tables.Library` asks for, by pyarrow."""

    @staticmethod
    def owns(data: Any) -> bool:
        """Whether it is a pyarrow table."""
        pyarrow = sys.modules.get("pyarrow")
        return pyarrow is not None and isinstance(data, pyarrow.Table)

    def length(self, frame: Any) -> int:
        return int(frame.num_rows)

    def columns(self, frame: Any) -> list[Any]:
        return list(frame.column_names)

    def mark(self, frame: Any) -> Any:
        return None

    def is_marked(self, frame: Any, mark: Any) -> bool:
        return True

    def values(self, frame: Any, column: str) -> list[Any]:
        found: list[Any] = frame.column(column).to_pylist()
        return found

    def keys(self, frame: Any, by: Sequence[str]) -> list[list[Any]] | None:
        there = frame.column_names
        return [self.values(frame, name) for name in by] if all(there.count(name) == 1 for name in by) else None

    def number(self, frame: Any, column: str, numbers: NDArray[np.int64] | None = None) -> Any:
        return frame.append_column(column, _pyarrow().array(np.arange(frame.num_rows) if numbers is None else numbers))

    def has_gaps(self, frame: Any) -> NDArray[np.bool_]:
        found = np.zeros(frame.num_rows, dtype=bool)
        for column in frame.columns:
            found |= column.is_null().to_numpy()
        return found

    def unnumber(self, frame: Any, columns: Sequence[str]) -> tuple[Any, list[Numbers]]:
        return frame.drop_columns(list(columns)), [_numbers(frame.column(column)) for column in columns]

    def take(self, frame: Any, positions: NDArray[Any]) -> Any:
        return frame.take(_pyarrow().array(positions))

    def filter(self, frame: Any, condition: Any, number: str) -> Any:
        pa = _pyarrow()
        chosen = condition(frame) if callable(condition) else condition
        if not isinstance(chosen, _compute().Expression):
            chosen = chosen if isinstance(chosen, pa.Array | pa.ChunkedArray) else pa.array(chosen, pa.bool_())
            if len(chosen) != frame.num_rows:
                raise ValueError(
                    f"filter() got a mask of {len(chosen)} for {frame.num_rows} rows; give one value for each"
                )
        return self.number(frame, number).filter(chosen)

    def sort(self, frame: Any, by: Sequence[str], descending: bool) -> Any:
        return frame.sort_by([(column, "descending" if descending else "ascending") for column in by])

    def first_equal(self, frame: Any, subset: Sequence[str] | None) -> NDArray[np.int64]:
        """The place of the first row that equals each; null equals null."""
        codes = np.zeros(frame.num_rows, dtype=np.int64)
        for column in self.columns(frame) if subset is None else subset:
            cells = frame.column(column).combine_chunks()
            if cells.type in (_pyarrow().float32(), _pyarrow().float64()):
                cells = _compute().add(cells, _pyarrow().scalar(0, cells.type))  # -0.0 becomes 0.0
            cells = cells.dictionary_encode(null_encoding="encode")
            indices = cells.indices.to_numpy(zero_copy_only=False).astype(np.int64)
            _, codes = np.unique(codes * (len(cells.dictionary) + 1) + indices, return_inverse=True)
        _, first = np.unique(codes, return_index=True)
        found: NDArray[np.int64] = first[codes]
        return found

    def explode(self, frame: Any, column: str) -> Any:
        pc, cells = _compute(), frame.column(column)
        flat = frame.take(pc.list_parent_indices(cells))
        place = frame.column_names.index(column)
        return flat.set_column(place, column, pc.list_flatten(cells))

    def join(self, left: Any, right: Any, on: Sequence[str], how: str) -> Any:
        return left.join(right, keys=list(on), join_type=HOW[how], use_threads=False)

    def aggregate(self, frame: Any, by: Sequence[str], function: Callable[[Any], Any]) -> tuple[Any, Numbers]:
        number = "fgtrac_row"
        made = function(frame.group_by(list(by), use_threads=False))
        members = self.number(frame, number).group_by(list(by), use_threads=False).aggregate([(number, "list")])
        return made, _numbers(members.column(f"{number}_list"))

    def concat(self, frames: Sequence[Any]) -> Any:
        return _pyarrow().concat_tables(list(frames))

    def equals(self, one: Any, other: Any) -> bool:
        if one.schema != other.schema or one.num_rows != other.num_rows:
            return False
        return all(_equal(one.column(n), other.column(n)) for n in range(one.num_columns))

    def lists(self, frame: Any, column: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
        pc, cells = _compute(), frame.column(column)
        sizes = pc.fill_null(pc.list_value_length(cells), 0).to_numpy().astype(np.int64)
        items = pc.list_flatten(cells)
        if items.null_count:
            raise ValueError(f"the lists of column {column!r:.60} have missing items; fill or drop them first")
        return sizes, items.to_numpy()

    def with_lists(self, frame: Any, column: str, sizes: NDArray[np.int64], values: NDArray[Any]) -> Any:
        pa, offsets = _pyarrow(), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        cells = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
        if column in frame.column_names:
            return frame.set_column(frame.column_names.index(column), column, cells)
        return frame.append_column(column, cells) if frame.num_columns else pa.table({column: cells})

    def without(self, frame: Any, column: str) -> Any:
        return frame.drop_columns([column])

    def empty(self, rows: int) -> Any:
        return _pyarrow().table({})


def _numbers(column: Any) -> Numbers:
    pa, pc = _pyarrow(), _compute()
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        there = pc.is_valid(column).to_numpy()
        return Numbers(there.astype(np.int64), of_values(pc.drop_null(column).to_numpy()).values)
    sizes = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    return Numbers(sizes, of_values(pc.list_flatten(column).to_numpy()).values)


def _equal(one: Any, other: Any) -> bool:
    """Equal cells; NaN equals NaN."""
    if one.equals(other):
        return True
    return bool(repr(one.to_pylist()) == repr(other.to_pylist()))


def _pyarrow() -> Any:
    return sys.modules["pyarrow"]


def _compute() -> Any:
    import pyarrow.compute  # where a table is, pyarrow is loaded

    return pyarrow.compute
