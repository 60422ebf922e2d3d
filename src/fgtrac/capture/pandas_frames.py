"""pandas frames as the stages of tables take them. pandas is looked up where it is loaded, never imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.row_numbers import Numbers, of_lists, of_values

HOW = {"inner": "inner", "left": "left", "right": "right", "outer": "outer"}


class PandasFrames:
    """What `tables.Library` asks for, by pandas."""

    @staticmethod
    def owns(data: Any) -> bool:
        """Whether it is a pandas frame."""
        pandas = sys.modules.get("pandas")
        return pandas is not None and isinstance(data, pandas.DataFrame)

    def length(self, frame: Any) -> int:
        return len(frame)

    def columns(self, frame: Any) -> list[Any]:
        return list(frame.columns)

    def mark(self, frame: Any) -> Any:
        return frame.index  # another object once rows were sorted, added or taken away in place

    def is_marked(self, frame: Any, mark: Any) -> bool:
        return frame.index is mark  # an equal one may be new: sort_values(ignore_index=True)

    def values(self, frame: Any, column: str) -> list[Any]:
        found: list[Any] = frame[column].tolist()
        return found

    def keys(self, frame: Any, by: Sequence[str]) -> list[list[Any]] | None:
        if all(name in frame.index.names for name in by):
            return [frame.index.get_level_values(name).tolist() for name in by]
        if frame.columns.nlevels > 1 or not all(self.columns(frame).count(name) == 1 for name in by):
            return None
        return [frame[name].tolist() for name in by]

    def number(self, frame: Any, column: str, numbers: NDArray[np.int64] | None = None) -> Any:
        if frame.columns.nlevels > 1:
            raise ValueError("the columns have several levels; flatten them first: frame.columns.to_flat_index()")
        return frame.assign(**{column: np.arange(len(frame)) if numbers is None else numbers})

    def has_gaps(self, frame: Any) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = frame.isna().any(axis=1).to_numpy()
        return found

    def unnumber(self, frame: Any, columns: Sequence[str]) -> tuple[Any, list[Numbers]]:
        found = []
        for column in columns:
            values = frame[column].to_numpy(dtype=object if frame[column].dtype == object else None, na_value=np.nan)
            found.append(of_lists(values) if values.dtype == object else of_values(values))
        return frame.drop(columns=list(columns)), found

    def take(self, frame: Any, positions: NDArray[Any]) -> Any:
        return frame.iloc[positions]

    def filter(self, frame: Any, condition: Any, number: str) -> Any:
        mask = condition(frame) if callable(condition) else condition
        if isinstance(mask, _pandas().Series) and not mask.index.equals(frame.index):
            if not mask.index.is_unique or not frame.index.isin(mask.index).all():
                raise ValueError("filter() got a mask with another index than the frame's; give one value for each row")
            mask = mask.reindex(frame.index)  # as frame[mask] does
        mask = _pandas().Series(np.asarray(mask, dtype=object) if isinstance(mask, list) else mask)
        if len(mask) != len(frame):
            raise ValueError(f"filter() got a mask of {len(mask)} for {len(frame)} rows; give one value for each")
        return self.number(frame, number)[mask.fillna(False).to_numpy(dtype=bool)]

    def sort(self, frame: Any, by: Sequence[str], descending: bool) -> Any:
        return frame.sort_values(list(by), ascending=not descending, kind="stable")

    def first_equal(self, frame: Any, subset: Sequence[str] | None) -> NDArray[np.int64]:
        """The place of the first row that equals each; NaN equals NaN, as for `drop_duplicates`."""
        columns = self.columns(frame) if subset is None else list(subset)
        if len(twice := frame.columns[frame.columns.duplicated()]):
            raise ValueError(f"deduplicate() got a frame with two columns {twice[0]!r:.60}; rename one")
        codes = frame.groupby(columns, dropna=False, sort=False, observed=True).ngroup().to_numpy()
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        found: NDArray[np.int64] = first[inverse]
        return found

    def explode(self, frame: Any, column: str) -> Any:
        return frame.explode(column)

    def join(self, left: Any, right: Any, on: Sequence[str], how: str) -> Any:
        return left.merge(right, on=list(on), how=HOW[how])

    def aggregate(self, frame: Any, by: Sequence[str], function: Callable[[Any], Any]) -> tuple[Any, Numbers]:
        grouped = frame.groupby(list(by), observed=True)
        groups = grouped.ngroup().fillna(-1).to_numpy().astype(np.int64)  # NaN where a row has no key
        members = np.flatnonzero(groups >= 0)  # rows without a key are in none
        order = members[np.argsort(groups[members], kind="stable")]
        return function(grouped), Numbers(np.bincount(groups[members]), order)

    def concat(self, frames: Sequence[Any]) -> Any:
        return _pandas().concat(list(frames))

    def equals(self, one: Any, other: Any) -> bool:
        return bool(one.equals(other))

    def lists(self, frame: Any, column: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
        cells = [_items(cell) for cell in frame[column]]
        full = [cell for cell in cells if len(cell)] or [np.zeros(0, np.int64)]
        return np.array([len(cell) for cell in cells], dtype=np.int64), np.concatenate(full)

    def with_lists(self, frame: Any, column: str, sizes: NDArray[np.int64], values: NDArray[Any]) -> Any:
        cells = [part.tolist() for part in np.split(values, np.cumsum(sizes)[:-1])] if len(sizes) else []
        return frame.assign(**{column: _pandas().Series(cells, index=frame.index, dtype=object)})

    def without(self, frame: Any, column: str) -> Any:
        return frame.drop(columns=[column])

    def empty(self, rows: int) -> Any:
        return _pandas().DataFrame(index=range(rows))


def _items(cell: Any) -> NDArray[Any]:
    """The items of a list, (n,): none of a missing one, and lists among them as they are."""
    if not hasattr(cell, "__len__"):
        return np.zeros(0, np.int64)
    if not len(cell) or not isinstance(cell[0], list | tuple | np.ndarray):
        return np.asarray(cell)
    items = np.empty(len(cell), dtype=object)
    for place, item in enumerate(cell):
        items[place] = item
    return items


def _pandas() -> Any:
    return sys.modules["pandas"]
