"""Tables whose rows are samples: which library a frame is of, and what the stages ask of that library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.arrow_tables import ArrowTables
from fgtrac.capture.pandas_frames import PandasFrames
from fgtrac.capture.polars_frames import PolarsFrames
from fgtrac.capture.row_numbers import Numbers
from fgtrac.errors import CaptureError


class Library(Protocol):
    """One library's frames. None of these changes a frame that it is given."""

    def length(self, frame: Any) -> int: ...
    def columns(self, frame: Any) -> list[Any]: ...
    def mark(self, frame: Any) -> Any:
        """What the frame's rows are told by, as `is_marked` takes it; None where frames cannot change."""

    def is_marked(self, frame: Any, mark: Any) -> bool:
        """Whether no row was moved, added or taken away in place since that was the mark, as far as it shows."""

    def values(self, frame: Any, column: str) -> list[Any]:
        """A column's values."""

    def keys(self, frame: Any, by: Sequence[str]) -> list[list[Any]] | None:
        """The values of each of these columns (pandas: or levels of the index), or None where one is missing."""

    def number(self, frame: Any, column: str, numbers: NDArray[np.int64] | None = None) -> Any:
        """The frame with one more column, which numbers its rows: from 0, or by `numbers`, (n,), with null where one is
        masked."""

    def has_gaps(self, frame: Any) -> NDArray[np.bool_]:
        """(n,) whether a row has a missing cell."""

    def unnumber(self, frame: Any, columns: Sequence[str]) -> tuple[Any, list[Numbers]]:
        """The frame (a lazy one collected) without these columns, and the row numbers that they held."""

    def take(self, frame: Any, positions: NDArray[Any]) -> Any: ...
    def filter(self, frame: Any, condition: Any, number: str) -> Any:
        """The rows for which `condition` holds: a mask, an expression, or a function of the frame that gives one; with
        a column `number` of their row numbers. Null is false."""

    def sort(self, frame: Any, by: Sequence[str], descending: bool) -> Any:
        """In order of columns; rows that are equal in them stay in theirs."""

    def first_equal(self, frame: Any, subset: Sequence[str] | None) -> NDArray[np.int64]:
        """(n,) the place of the first row that equals each in these columns, or in all."""

    def explode(self, frame: Any, column: str) -> Any: ...
    def join(self, left: Any, right: Any, on: Sequence[str], how: str) -> Any: ...
    def aggregate(self, frame: Any, by: Sequence[str], function: Callable[[Any], Any]) -> tuple[Any, Numbers]:
        """What `function` makes of the frame's groups, and the rows that are in each group."""

    def concat(self, frames: Sequence[Any]) -> Any: ...
    def equals(self, one: Any, other: Any) -> bool: ...
    def lists(self, frame: Any, column: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Of a column of lists, how long each is, and all their items. ValueError where one is missing."""

    def with_lists(self, frame: Any, column: str, sizes: NDArray[np.int64], values: NDArray[Any]) -> Any:
        """The frame with such a column."""

    def without(self, frame: Any, column: str) -> Any: ...
    def empty(self, rows: int) -> Any:
        """A frame without columns."""


LIBRARIES = (PandasFrames, PolarsFrames, ArrowTables)


def library_of(data: Any) -> Library | None:
    """The library of a frame: pandas, polars (eager or lazy) or pyarrow; None for anything else."""
    return next((kind() for kind in LIBRARIES if kind.owns(data)), None)


def libraries_of(data: Any) -> Library | None:
    """The library of a frame, or of all frames in a list or tuple. TypeError for frames of several."""
    if not isinstance(data, list | tuple):
        return library_of(data)
    if not data or library_of(data[0]) is None:
        return None  # a data set that is a list may be long
    found = [library_of(part) for part in data]
    if None in found:
        return None
    if len({type(one) for one in found}) > 1:
        kinds = ", ".join(sorted({type(part).__module__.partition(".")[0] for part in data}))
        raise TypeError(f"a stage was given frames of {kinds}; convert them to one library")
    return found[0]


def mark_of(data: Any) -> Any:
    """What tells whether a table still has the rows that it has now; None for what cannot change, or is no table."""
    library = library_of(data)
    return None if library is None else library.mark(data)


def check_unchanged(data: Any, mark: Any) -> None:
    """CaptureError for a table that has other rows than when that was its mark."""
    library = library_of(data)
    if mark is not None and library is not None and not library.is_marked(data, mark):
        raise CaptureError(
            f"the rows of this {type(data).__name__} may be others than when it became known: it was sorted, cut, "
            "added to or given another index in place; make changes through run.transform, or on a copy"
        )


def settled(data: Any) -> Any:
    """The data with their rows in one order for good: a lazy polars frame collected, which may bring them in another
    order each time, and lazy again; all else as it is."""
    return data.collect().lazy() if _is_lazy(data) else data


def check_settled(data: Any) -> None:
    """ValueError for a lazy frame, where row i of something else is to be row i of it."""
    if _is_lazy(data):
        raise ValueError(
            "a LazyFrame may have its rows in another order each time that it is collected: collect it once, and give "
            "that frame"
        )


def _is_lazy(data: Any) -> bool:
    return PolarsFrames.owns(data) and hasattr(data, "collect")
