"""Frames that go through a function with one more column, which numbers their rows: it says which rows each result is
made of, and more runs of the function say whether it can be believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.families import Families
from fgtrac.capture.row_numbers import families_of, more_numberings, positions_of
from fgtrac.capture.tables import Library, libraries_of

NUMBER = "fgtrac_row"  # of several frames with their number behind it


class CarriedRows:
    """The frames of one stage, of `lengths` rows, and the columns (`names`) that number their rows. ValueError for a
    frame that has such a column."""

    def __init__(self, stage: str, library: Library, frames: Sequence[Any], lengths: Sequence[int]) -> None:
        self._stage = stage
        self._library = library
        self._frames = frames
        self._lengths = lengths
        self.names = [NUMBER] if len(frames) == 1 else [f"{NUMBER}_{n}" for n in range(len(frames))]
        for frame, name in zip(frames, self.names, strict=True):
            if name in library.columns(frame):
                raise ValueError(f"a column is named {name!r}, which fgtrac carries row numbers in; rename it")

    def carry(self, function: Callable[..., Any], check: bool) -> dict[str | None, tuple[Any, Families]]:
        """What comes out of a function that the frames were carried through with their row numbers, by output."""
        made = self._numbered(function, None)
        if not check:
            return made
        bare = _outputs(function(*self._frames))
        if set(bare) != set(made) or not all(self._library.equals(made[name][0], bare[name]) for name in bare):
            raise ValueError(
                f"stage {self._stage!r}: the function gives something else when the frame has one more "
                f"column, {self.names[0]}: let it name the columns that it looks at and seed what it draws, or "
                "pass check=False to take what came out with the column"
            )
        for numberings in zip(*map(more_numberings, self._lengths), strict=True):
            self._check_numbers(function, numberings, made)
        self._check_gaps(function, made)
        return made

    def _numbered(
        self, function: Callable[..., Any], numberings: Sequence[NDArray[np.int64]] | None
    ) -> dict[str | None, tuple[Any, Families]]:
        """What comes out where the rows of each frame are numbered so, or from 0."""
        given: Sequence[NDArray[np.int64] | None] = numberings or [None] * len(self._frames)
        numbered = map(self._library.number, self._frames, self.names, given)
        made = _outputs(function(*numbered))
        return {name: self.separate(frame, numberings) for name, frame in made.items()}

    def _check_numbers(
        self,
        function: Callable[..., Any],
        numberings: Sequence[NDArray[np.int64]],
        made: Mapping[str | None, tuple[Any, Families]],
    ) -> None:
        """ValueError where other numbers lead to other rows: then the function computes with them."""
        try:
            again = self._numbered(function, numberings)
            same = set(again) == set(made) and all(
                self._library.equals(frame, made[name][0]) and families.has_same_parents(made[name][1])
                for name, (frame, families) in again.items()
            )
        except ValueError:
            same = False
        if not same:
            raise ValueError(
                f"stage {self._stage!r}: with other numbers in {self.names[0]} the function names other "
                "rows, so nobody can tell which rows each is made of: it computes with that column, as max() and sum() "
                "of groups do. Use aggregate(by, function), or let it collect the column's numbers in a list"
            )

    def _check_gaps(self, function: Callable[..., Any], made: Mapping[str | None, tuple[Any, Families]]) -> None:
        """ValueError where the function fills missing cells from rows that it drops: it does so with numbers, too."""
        reached = np.zeros(sum(self._lengths), dtype=bool)
        for _, families in made.values():
            reached[families.parents] = True
        numberings, start = [], 0
        for frame, length in zip(self._frames, self._lengths, strict=True):
            gaps = self._library.has_gaps(frame) & reached[start : start + length]
            numberings.append(np.ma.array(np.arange(length), mask=gaps))
            start += length
        if reached.all() or not any(numbering.mask.any() for numbering in numberings):
            return
        for _, families in self._numbered(function, numberings).values():
            if not reached[families.parents].all():
                raise ValueError(
                    f"stage {self._stage!r}: the function fills missing cells of one row from others that it "
                    "drops, as first() of groups does in pandas, so nobody can tell which rows each is made of: use "
                    "aggregate(by, function), or choose whole rows (head(1), drop_duplicates)"
                )

    def check_table(self, frame: Any) -> None:
        if libraries_of(frame) is None:
            raise TypeError(f"stage {self._stage!r}: the function gave a {type(frame).__name__}, and no table")

    def separate(self, frame: Any, numberings: Sequence[NDArray[np.int64]] | None = None) -> tuple[Any, Families]:
        """A frame and its row numbers apart."""
        self.check_table(frame)
        there = self._library.columns(frame)
        if lost := [number for number in self.names if number not in there]:
            raise ValueError(
                f"stage {self._stage!r}: what the function gave has no column {lost[0]}, which would say what "
                "rows it is made of: let it keep that column (in groups as a list), use the verb for this step, "
                "map(function, aligned=True) where row i is made of row i, or record(frame, parents)"
            )
        bare, found = self._library.unnumber(frame, self.names)
        if numberings is not None:
            found = [positions_of(f, np.ma.getdata(n)) for f, n in zip(found, numberings, strict=True)]
        return bare, families_of(found, self._lengths)


def _outputs(made: Any) -> dict[str | None, Any]:
    if isinstance(made, Mapping):
        return {str(name): frame for name, frame in made.items()}
    if isinstance(made, list | tuple):
        return {str(number): frame for number, frame in enumerate(made)}
    return {None: made}
