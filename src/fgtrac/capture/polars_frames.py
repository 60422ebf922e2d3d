"""polars frames, eager and lazy, as the stages of tables take them. polars is looked up, never imported.

Which rows of a lazy frame survive is known when it is collected: what a stage makes of one is an eager frame.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.row_numbers import Numbers, of_values

HOW = {"inner": "inner", "left": "left", "right": "right", "outer": "full"}
MASK, NUMBER = "fgtrac_mask", "fgtrac_row"


class PolarsFrames:
    """What `tables.Library` asks for, by polars."""

    @staticmethod
    def owns(data: Any) -> bool:
        """Whether it is a polars frame."""
        polars = sys.modules.get("polars")
        return polars is not None and isinstance(data, polars.DataFrame | polars.LazyFrame)

    def length(self, frame: Any) -> int:
        pl = _polars()
        return int(frame.select(pl.len()).collect().item()) if isinstance(frame, pl.LazyFrame) else len(frame)

    def columns(self, frame: Any) -> list[Any]:
        return list(frame.collect_schema().names())

    def mark(self, frame: Any) -> Any:
        return None if isinstance(frame, _polars().LazyFrame) else frame.height  # extend() and vstack() work in place

    def is_marked(self, frame: Any, mark: Any) -> bool:
        return bool(frame.height == mark)

    def values(self, frame: Any, column: str) -> list[Any]:
        found: list[Any] = eager(frame.select(column)).to_series().to_list()
        return found

    def keys(self, frame: Any, by: Sequence[str]) -> list[list[Any]] | None:
        there = self.columns(frame)
        return [self.values(frame, name) for name in by] if all(name in there for name in by) else None

    def number(self, frame: Any, column: str, numbers: NDArray[np.int64] | None = None) -> Any:
        pl = _polars()
        if numbers is None:
            return frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(column))
        values = numbers.tolist() if isinstance(numbers, np.ma.MaskedArray) else numbers
        return frame.with_columns(pl.Series(column, values, dtype=pl.Int64))

    def has_gaps(self, frame: Any) -> NDArray[np.bool_]:
        pl = _polars()
        found: NDArray[np.bool_] = eager(frame.select(pl.any_horizontal(pl.all().is_null()))).to_series().to_numpy()
        return found

    def unnumber(self, frame: Any, columns: Sequence[str]) -> tuple[Any, list[Numbers]]:
        collected = eager(frame)
        return collected.drop(columns), [_numbers(collected[column]) for column in columns]

    def take(self, frame: Any, positions: NDArray[Any]) -> Any:
        return eager(frame)[positions]

    def filter(self, frame: Any, condition: Any, number: str) -> Any:
        pl = _polars()
        chosen = condition(frame) if callable(condition) else condition
        if isinstance(chosen, pl.Expr):  # evaluated without the column of row numbers
            mask = eager(frame.with_columns(chosen.alias(MASK)).select(MASK)).to_series()
        else:
            mask = pl.Series(MASK, chosen).cast(pl.Boolean)
            if len(mask) != (rows := self.length(frame)):
                raise ValueError(f"filter() got a mask of {len(mask)} for {rows} rows; give one value for each")
        return eager(self.number(frame, number)).filter(mask)

    def sort(self, frame: Any, by: Sequence[str], descending: bool) -> Any:
        return frame.sort(list(by), descending=descending, maintain_order=True)

    def first_equal(self, frame: Any, subset: Sequence[str] | None) -> NDArray[np.int64]:
        """The place of the first row that equals each; null equals null, as for `unique`."""
        pl, columns = _polars(), self.columns(frame) if subset is None else list(subset)
        numbered = self.number(frame.lazy(), NUMBER)
        chosen = numbered.select(pl.col(NUMBER).first().over(columns)).collect()
        found: NDArray[np.int64] = chosen.to_series().to_numpy()
        return found

    def explode(self, frame: Any, column: str) -> Any:
        return frame.explode(column)

    def join(self, left: Any, right: Any, on: Sequence[str], how: str) -> Any:
        coalesce = {"coalesce": True} if how == "outer" else {}
        return left.join(right, on=list(on), how=HOW[how], **coalesce)

    def aggregate(self, frame: Any, by: Sequence[str], function: Callable[[Any], Any]) -> tuple[Any, Numbers]:
        made = eager(function(frame.group_by(list(by), maintain_order=True)))
        members = self.number(frame, NUMBER).group_by(list(by), maintain_order=True).agg(NUMBER)
        return made, _numbers(eager(members)[NUMBER])

    def concat(self, frames: Sequence[Any]) -> Any:
        return eager(_polars().concat(list(frames)))

    def equals(self, one: Any, other: Any) -> bool:
        return bool(eager(one).equals(eager(other)))

    def lists(self, frame: Any, column: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
        cells = eager(frame.select(column)).to_series()
        sizes = cells.list.len().fill_null(0).to_numpy().astype(np.int64)
        items = _flat(cells)
        if len(items) != sizes.sum():
            raise ValueError(f"the lists of column {column!r:.60} have missing items; fill or drop them first")
        return sizes, items.to_numpy()

    def with_lists(self, frame: Any, column: str, sizes: NDArray[np.int64], values: NDArray[Any]) -> Any:
        pl = _polars()
        items = pl.Series("items", values.tolist() if values.dtype == object else values)
        owners = pl.DataFrame({"row": np.repeat(np.arange(len(sizes)), sizes), "items": items})
        cells = owners.group_by("row", maintain_order=True).agg("items")
        rows = pl.DataFrame({"row": np.arange(len(sizes))}).join(cells, on="row", how="left").sort("row")["items"]
        rows = rows.alias(column)
        rows = rows.fill_null(pl.lit([], dtype=rows.dtype)) if rows.null_count() else rows
        there = eager(frame)
        return there.with_columns(rows) if there.width else rows.to_frame()

    def without(self, frame: Any, column: str) -> Any:
        return frame.drop(column)

    def empty(self, rows: int) -> Any:
        return _polars().DataFrame()


def eager(frame: Any) -> Any:
    """The frame, collected if it is lazy."""
    return frame.collect() if isinstance(frame, _polars().LazyFrame) else frame


def _numbers(column: Any) -> Numbers:
    if not isinstance(column.dtype, _polars().List):
        there = column.is_not_null().to_numpy()
        whole = of_values(column.drop_nulls().to_numpy())
        return Numbers(there.astype(np.int64), whole.values)
    sizes = column.list.drop_nulls().list.len().fill_null(0).to_numpy().astype(np.int64)
    return Numbers(sizes, of_values(_flat(column).to_numpy()).values)


def _flat(cells: Any) -> Any:
    """The items of a column of lists, one after another."""
    return cells.explode().drop_nulls()


def _polars() -> Any:
    return sys.modules["polars"]
