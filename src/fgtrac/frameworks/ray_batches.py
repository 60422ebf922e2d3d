"""What Ray's workers call in the place of a user's function: rows go in and come out with their numbers.

A row's function gets the row without the column. A batch's function gets the column, and must leave it alone; where it
computes with it, other numbers lead to other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.carried_rows import NUMBER
from fgtrac.capture.row_numbers import more_numberings
from fgtrac.capture.tables import library_of

Positions = NDArray[np.int64]
Row = dict[str, Any]


class RowsLost(ValueError):
    """What came out does not say which rows it is made of."""


def filtered(function: Callable[..., Any]) -> Callable[..., Any]:
    """For Ray's `filter`."""
    _check_function(function)

    def keeps(row: Row, *arguments: Any, **named: Any) -> Any:
        return function(_bare(row), *arguments, **named)

    return keeps


def mapped(function: Callable[..., Row]) -> Callable[..., Row]:
    """For Ray's `map`."""
    _check_function(function)

    def one(row: Row, *arguments: Any, **named: Any) -> Row:
        return _with_number(function(_bare(row), *arguments, **named), row[NUMBER], "return one dict for each row")

    return one


def unrolled(function: Callable[..., Any]) -> Callable[..., list[Row]]:
    """For Ray's `flat_map`."""
    _check_function(function)

    def several(row: Row, *arguments: Any, **named: Any) -> list[Row]:
        rows, remedy = function(_bare(row), *arguments, **named), "return a list of dicts, empty where there is none"
        if not isinstance(rows, Iterable):
            raise RowsLost(f"the function gave a {type(rows).__name__}, and no rows: {remedy}")
        return [_with_number(made, row[NUMBER], remedy) for made in rows]

    return several


def carried(function: Callable[..., Any], *, aligned: bool, check: bool) -> Callable[..., Any]:
    """For Ray's `map_batches`."""
    _check_function(function)

    def through(batch: Any, *arguments: Any, **named: Any) -> Any:
        bare, numbers = apart(batch)
        if aligned:
            made = function(bare, *arguments, **named)
            if (rows := _count(made)) != len(numbers):
                raise RowsLost(
                    f"the function gave {rows} rows for a batch of {len(numbers)}, so that row i is not made of row i: "
                    f"leave aligned= out, and let it keep the column {NUMBER}"
                )
            return _together(made, numbers)
        if check:
            _check_again(lambda one: function(one, *arguments, **named), bare, numbers)
        return _checked(function(_together(bare, numbers), *arguments, **named), numbers)

    return through


def numbered_block(block: Any, start: int) -> tuple[Any, Positions]:
    """A pyarrow table with its rows numbered from `start`, and the numbers that they had (or -1)."""
    import pyarrow as pa

    had = np.full(block.num_rows, -1)
    if NUMBER in block.column_names:
        had = block.column(NUMBER).to_numpy().astype(np.int64)
        block = block.drop_columns([NUMBER])
    return block.append_column(NUMBER, pa.array(np.arange(start, start + block.num_rows, dtype=np.int64))), had


def _check_function(function: Any) -> None:
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"a stage takes a function, not {function!r:.80}; call what a class makes inside of one")


def _check_again(function: Callable[[Any], Any], bare: Any, numbers: Positions) -> None:
    """RowsLost where other numbers lead to other rows: then the function computes with them."""
    first = _found(function(_together(_copied(bare), numbers)))
    for others in more_numberings(len(numbers)):
        back = dict(zip(others.tolist(), numbers.tolist(), strict=True))
        again = [back.get(int(n)) for n in _found(function(_together(_copied(bare), others)))]
        if again != first.tolist():
            raise RowsLost(
                f"with other numbers in {NUMBER} the function names other rows, so nobody can tell which rows each is "
                "made of: let it leave that column alone; of one that draws at random, seed it or pass check=False"
            )


def _checked(made: Any, numbers: Positions) -> Any:
    if not np.isin(_found(made), numbers).all():
        raise RowsLost(f"the column {NUMBER} has numbers that no row of the batch had; let the function leave it alone")
    return made


def _found(made: Any) -> Positions:
    """The numbers of what a function gave."""
    if not (isinstance(made, dict) or library_of(made) is not None):
        raise RowsLost(
            f"the function gave a {type(made).__name__}, and no batch: return one batch for each, or use flat_map"
        )
    if NUMBER not in (made if isinstance(made, dict) else library_of(made).columns(made)):  # type: ignore[union-attr]
        raise RowsLost(
            f"what the function gave has no column {NUMBER}, which would say what rows it is made of: let it keep that "
            "column, or pass aligned=True where row i is made of row i"
        )
    _bare_batch, numbers = apart(made)
    if _count(made) != len(numbers):
        raise RowsLost(f"the column {NUMBER} has {len(numbers)} numbers for {_count(made)} rows")
    return numbers


def _bare(row: Row) -> Row:
    return {name: cell for name, cell in row.items() if name != NUMBER}


def _with_number(made: Any, number: Any, remedy: str) -> Row:
    if not isinstance(made, Mapping):
        raise RowsLost(f"the function gave a {type(made).__name__}, and no row: {remedy}")
    if NUMBER in made:
        raise RowsLost(f"the function gave a column {NUMBER}, which fgtrac carries row numbers in; rename it")
    return {**made, NUMBER: number}


# -- a batch in each of Ray's formats ---------------------------------------------------------------------------------


def apart(batch: Any) -> tuple[Any, Positions]:
    """The batch without the column, and its numbers."""
    if isinstance(batch, dict):
        return _bare(batch), np.asarray(batch[NUMBER])
    library = library_of(batch)
    assert library is not None  # Ray's formats, and what a function gave was looked at
    bare, (numbers,) = library.unnumber(batch, [NUMBER])
    return bare, numbers.values


def _together(batch: Any, numbers: Positions) -> Any:
    if isinstance(batch, dict):
        return {**batch, NUMBER: numbers}
    library = library_of(batch)
    if library is None:
        raise RowsLost(f"the function gave a {type(batch).__name__}, and no batch: return one batch for each")
    return library.number(batch, NUMBER, numbers)


def _copied(batch: Any) -> Any:
    """A batch that shares no cell with this one, whatever a function changes in it. RowsLost where a cell allows no
    copy."""
    try:
        return _copied_cells(batch)
    except Exception as error:  # whatever a cell's own type raises
        raise RowsLost(
            "a cell of the batch cannot be copied, so that the function cannot be tried with other numbers: pass "
            f"check=False where it leaves the column {NUMBER} alone ({type(error).__name__}: {error!s:.200})"
        ) from error


def _copied_cells(batch: Any) -> Any:
    if isinstance(batch, dict):
        return deepcopy(batch)
    if not hasattr(batch, "isetitem"):
        return batch  # Arrow's do not change
    copied = batch.copy(deep=False)
    for place, (_name, column) in enumerate(batch.items()):
        copied.isetitem(place, deepcopy(column.array))  # pandas' own deep copy has the same objects in its cells
    return copied


def _count(batch: Any) -> int:
    if isinstance(batch, dict):
        return len(next(iter(batch.values()))) if batch else 0
    library = library_of(batch)
    return -1 if library is None else library.length(batch)
