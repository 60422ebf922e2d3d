"""A function of batches that also says what each row that it makes is made of, in a column of its own.

The column goes through `datasets` with the others: through its worker processes, and into and out of its cache.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgtrac.capture.families import Families
from fgtrac.capture.tables import library_of

NUMBER = "fgtrac_row"


@dataclass(frozen=True)
class Parented:
    """What `Dataset.map(batched=True)` is given in the place of `function`. `parents` is the column of what comes out
    that says which rows of the batch each row is made of; None where row i is made of row i."""

    function: Callable[..., Any]
    parents: str | None
    with_indices: bool
    with_rank: bool

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of `map` that go with it."""
        options = {**given, "with_indices": True}
        if given.get("features") is not None:
            datasets = sys.modules["datasets"]
            options["features"] = datasets.Features(
                {**given["features"], NUMBER: datasets.Sequence(datasets.Value("int64"))}
            )
        return options

    def __call__(self, *given: Any, **more: Any) -> Any:
        """The batch (or its columns), the numbers of its rows, and the process's rank where that is asked for."""
        behind = 2 if self.with_rank else 1
        inputs, numbers, rank = given[:-behind], given[-behind], given[len(given) - behind + 1 :]
        made = self.function(*inputs, *([numbers] if self.with_indices else []), *rank, **more)
        if made is None:
            return None
        rows = self._rows(numbers, self._places(made, len(numbers)))
        if isinstance(made, Mapping):
            return {**made, NUMBER: rows}
        library = library_of(made)
        assert library is not None
        families = Families.of(rows)
        return library.with_lists(made, NUMBER, np.diff(families.offsets), families.parents)

    def _places(self, made: Any, batch: int) -> Sequence[Any]:
        """What each row is made of, by its place in the batch."""
        if (library := library_of(made)) is not None:
            rows, columns = library.length(made), library.columns(made)
        elif isinstance(made, Mapping):
            rows, columns = next((len(column) for column in made.values()), batch), list(made)
        else:
            raise TypeError(f"the function of batches gave a {type(made).__name__}; it gives a dict, or a table")
        if self.parents is not None:
            if self.parents not in columns:
                raise ValueError(f"the function gave no column {self.parents!r}, as parents= says; let it give that")
            named: Sequence[Any] = made[self.parents] if library is None else library.values(made, self.parents)
            return named
        if rows != batch:
            raise ValueError(
                f"the function made {rows} rows of a batch of {batch}, and nobody can tell which of which: let it give "
                "a column with the place in the batch that each row is made of (or a list of places), and name that "
                "column with parents="
            )
        return range(batch)

    def _rows(self, numbers: Sequence[int], places: Sequence[Any]) -> list[list[int]]:
        """The data set's numbers of the rows that each row is made of."""
        if len(places) and np.ndim(places[0]) == 0:
            one_each = np.asarray(places, dtype=np.int64)
            outside = (one_each < 0) | (one_each >= len(numbers))
            if not outside.any():
                return [[number] for number in np.asarray(numbers, dtype=np.int64)[one_each].tolist()]
            places = [[place] for place in one_each[outside].tolist()]
        rows = [np.asarray(few, dtype=np.int64).reshape(-1).tolist() for few in places]
        for row in rows:
            if not row or min(row) < 0 or max(row) >= len(numbers):
                raise ValueError(
                    f"a row is made of the places {row!r:.80} of a batch of {len(numbers)}, as {self.parents!r} says; "
                    f"give at least one from 0 to {len(numbers) - 1}"
                )
        return [[numbers[place] for place in row] for row in rows]
