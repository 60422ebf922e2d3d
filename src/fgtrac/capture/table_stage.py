"""Preprocessing of tables under trace: pandas, polars and pyarrow frames in, an ordinary frame of the same kind out.

    clean = run.transform("clean", frame).filter(lambda f: f["age"] > 17)
    both = run.transform("join", clean).join(labels, on="id")
    made = run.transform("mine", both).apply(lambda f: f.dropna(subset=["text"]).sample(frac=0.1, random_state=0))

Where a function does the work, the frame carries one more column through it, which numbers its rows, and which is
taken off again: what comes out says itself which rows it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.carried_rows import NUMBER, CarriedRows
from fgtrac.capture.families import Families
from fgtrac.capture.lineage import Lineage, ended
from fgtrac.capture.packing import pack, windows
from fgtrac.capture.roots import join_resolved, select_resolved
from fgtrac.capture.row_numbers import Numbers, families_of, take_rows
from fgtrac.capture.tables import Library, libraries_of

JOINS = ("inner", "left", "right", "outer")
NAN = object()  # stands for NaN, which equals nothing
Names = str | Sequence[str]


class TableStage:
    """One named stage over one table, or over several that `apply` takes; call exactly one of its verbs.

    ValueError for arguments that do not fit, and where what comes out does not say which rows it is made of.
    """

    def __init__(self, lineage: Lineage, frames: Sequence[Any], library: Library) -> None:
        self._lineage = lineage
        self._library = library
        parts = [lineage.registry.resolve(frame) for frame in frames]
        self._given = tuple(frames)
        self._frames = tuple(lineage.registry.rows_of(frame) for frame in frames)
        self._lengths = [len(part.rows) for part in parts]
        self._data = join_resolved(parts)
        self._carried = CarriedRows(lineage.stage, library, self._frames, self._lengths)

    # -- rows stay their samples ----------------------------------------------------------------------------------

    def filter(self, condition: Any) -> Any:
        """Keep the rows for which `condition` holds: a mask, an expression of the library's, or a function of the frame
        that gives one. Null is false."""
        said = _said(condition) if callable(condition) else {"parameters": _written(condition=condition)}
        return self._take_off("filter", self._library.filter(self._one, condition, NUMBER), new=False, **said)

    def select(self, positions: Sequence[int] | NDArray[Any]) -> Any:
        """The rows at these positions, in that order; a row may stand there twice."""
        chosen = np.asarray(positions, dtype=np.int64)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < self._rows:
            raise ValueError(f"select() got positions outside 0 to {self._rows - 1}")
        return self._rows_at("select", chosen)

    def sort(self, by: Names, *, descending: bool = False) -> Any:
        """The rows in order of columns; equal ones stay in theirs."""
        names = _names(by)
        made = self._library.sort(self._library.number(self._one, NUMBER), names, descending)
        return self._take_off("sort", made, new=False, parameters={"by": names, "descending": descending})

    def shuffle(self, seed: int) -> Any:
        """The rows in the order that numpy's `default_rng(seed).permutation` draws."""
        return self._rows_at("shuffle", np.random.default_rng(seed).permutation(self._rows), parameters={"seed": seed})

    def deduplicate(self, subset: Names | None = None) -> Any:
        """The first of rows that are equal in the columns `subset`, by default in all. Missing values are equal."""
        names = None if subset is None else _names(subset)
        try:
            first = self._library.first_equal(self._one, names)
        except (TypeError, NotImplementedError) as error:  # pandas and pyarrow of columns of lists
            raise TypeError(
                f"deduplicate() cannot compare the cells ({error}); name the columns to compare, of plain values"
            ) from error
        kept = first == np.arange(self._rows)
        dropped = ended(self._data, kept)
        said = {"parameters": {"subset": names}} if names is not None else {}
        positions = np.flatnonzero(kept)
        frame = self._library.take(self._one, positions)
        self._lineage.keep("deduplicate", self._data, positions, dropped, same_as=first[dropped], **said)
        return self._adopt(frame, positions)

    def map(self, function: Callable[[Any], Any], *, aligned: bool = False, check: bool = True) -> Any:
        """What `function` makes of the frame, row by row: each stays its sample, in its place.

        The frame carries its row numbers through the function, and `check` runs it again without them, and with others,
        as in `apply`. With `aligned` it runs once, without them: then you say that row i is made of row i.
        """
        if not aligned:
            frame, families = self._carried.carry(function, check)[None]
        else:
            made = function(self._one)
            self._carried.check_table(made)
            (frame, _), families = self._library.unnumber(made, ()), _each(np.arange(self._rows))  # collected, if lazy
        rows = self._library.length(frame)
        if rows != self._rows or not np.array_equal(families.parents, np.arange(rows)):
            raise ValueError(
                f"stage {self._lineage.stage!r}: map() got {rows} rows for {self._rows}, or in another order; "
                "use filter, sort, explode or apply for what changes rows"
            )
        return self._hand_on("map", frame, families, new=False, **_said(function))

    def split(
        self, parts: Mapping[str, float] | Sequence[str | None] | Callable[[Any], Any] | str, *, seed: int | None = None
    ) -> dict[str, Any]:
        """Cut the table into named parts: a share for each name (drawn by `seed`), a name for each row, a column that
        has one, or a function of the frame that gives them. None drops a row. Returns the parts by name."""
        if isinstance(parts, Mapping):
            if seed is None or not parts or min(parts.values()) < 0 or sum(parts.values()) > 1 + 1e-9:
                raise ValueError(
                    f"split() got the shares {dict(parts)} and seed={seed}; give shares up to 1, and a seed"
                )
            named: Sequence[Any] = _by_share(parts, self._rows, seed)
            said: dict[str, Any] = {"parameters": {"parts": {k: float(v) for k, v in parts.items()}, "seed": seed}}
        elif isinstance(parts, str):
            named, said = self._library.values(self._one, parts), {"parameters": {"parts": parts}}
        else:
            named, said = list(parts(self._one) if callable(parts) else parts), _said(parts) if callable(parts) else {}
        if len(named) != self._rows:
            raise ValueError(f"split() got {len(named)} names for {self._rows} rows; give one for each")
        places: dict[str, list[int]] = {name: [] for name in parts} if isinstance(parts, Mapping) else {}
        fallen: list[int] = []
        for row, name in enumerate(named):
            fallen.append(row) if name is None or name != name else places.setdefault(str(name), []).append(row)
        made = {}
        for name, rows in places.items():
            positions = np.array(rows, dtype=np.int64)
            made[name] = self._library.take(self._one, positions)
            self._lineage.keep("split", self._data, positions, None, output=name, **said)
            self._adopt(made[name], positions)
        reached = np.ones(self._rows, dtype=bool)
        reached[fallen] = False
        self._lineage.drop("split", self._data, reached, **said)
        return made

    def train_test_split(self, test_size: float = 0.25, *, seed: int) -> tuple[Any, Any]:
        """`split` into a training part and a test part of that share."""
        parts = self.split({"train": 1 - test_size, "test": test_size}, seed=seed)
        return parts["train"], parts["test"]

    def concat(self, *others: Any) -> Any:
        """The rows of this table and of others behind it."""
        both = self._with(others)
        frame = self._library.concat(both._frames)
        return both._hand_on("concatenate", frame, _each(np.arange(sum(both._lengths))), new=False)

    # -- rows become new samples ----------------------------------------------------------------------------------

    def join(self, other: Any, on: Names, how: str = "inner") -> Any:
        """Rows of this table beside those of another with the same values in the columns `on`: "inner", "left", "right"
        or "outer". Each is a new sample, with its parents on both sides. For other joins, `apply` takes both tables."""
        if how not in JOINS:
            raise ValueError(f"how={how!r} is no join; choose {', '.join(JOINS)}, or apply() a function to both tables")
        both, names = self._with((other,)), _names(on)
        left, right = (both._library.number(f, n) for f, n in zip(both._frames, both._carried.names, strict=True))
        made = both._library.join(left, right, names, how)
        return both._take_off("join", made, new=True, parameters={"on": names, "how": how})

    def explode(self, column: str) -> Any:
        """A new sample for each item of a column of lists."""
        made = self._library.explode(self._library.number(self._one, NUMBER), column)
        return self._take_off("explode", made, new=True, parameters={"column": column})

    def aggregate(self, by: Names, function: Callable[[Any], Any]) -> Any:
        """A new sample for each group of rows with the same values in the columns `by`: what `function` makes of the
        library's grouped frame (polars: `lambda groups: groups.agg(pl.col("x").sum())`), in any order: the columns `by`
        of what comes out say which group a row is."""
        names = _names(by)
        frame, members = self._library.aggregate(self._one, names, function)
        self._carried.check_table(frame)
        if (rows := self._library.length(frame)) != len(members.sizes):
            raise ValueError(f"aggregate() got {rows} rows for {len(members.sizes)} groups; give one for each")
        families = families_of([take_rows(members, self._groups_of(frame, names, members))], self._lengths)
        return self._hand_on("aggregate", frame, families, new=True, parameters={"by": names}, **_said(function))

    def tokenise(
        self, function: Callable[[Any], Sequence[Any]], column: str, *, into: str = "tokens", size: int | None = None
    ) -> Any:
        """Turn a column of texts into one of token numbers, named `into`: `function(text)` gives them.

        With `size`, each text becomes as many new samples as it has windows of `size` tokens, the last one shorter; the
        log says which tokens each has. Without, each row stays its sample.
        """
        tokens = [np.asarray(function(text)) for text in self._library.values(self._one, column)]
        sizes = np.array([len(one) for one in tokens], dtype=np.int64)
        values = np.concatenate([one for one in tokens if len(one)] or [np.zeros(0, np.int64)])
        bare = self._library.without(self._one, column)
        said = {"parameters": {"column": column} | ({} if size is None else {"size": size}), **_said(function)}
        if size is None:
            frame = self._library.with_lists(bare, into, sizes, values)
            return self._hand_on("tokenise", frame, _each(np.arange(self._rows)), new=False, **said)
        families, lengths = windows(sizes, size)
        frame = self._library.with_lists(self._library.take(bare, families.parents), into, lengths, values)
        return self._hand_on("tokenise", frame, families, new=True, **said)

    def pack(self, column: str, size: int) -> Any:
        """The items of a column of lists, one row after another, as new rows of `size` items each; what is left at the
        end is dropped, and so are the other columns. The log says which items of which rows each has."""
        sizes, values = self._library.lists(self._one, column)
        families, rows = pack(sizes, size)
        lengths = np.full(rows, size, dtype=np.int64)
        frame = self._library.with_lists(self._library.empty(rows), column, lengths, values[: rows * size])
        return self._hand_on("pack", frame, families, new=True, parameters={"column": column, "size": size})

    # -- either ---------------------------------------------------------------------------------------------------

    def apply(self, function: Callable[..., Any], *, new: bool | None = None, check: bool = True) -> Any:
        """What `function` makes of the frame (or of several frames): a frame, a tuple or list of them, or a dict.

        Each frame goes in with one more column, `fgtrac_row` (of several `fgtrac_row_0`, ...), and each frame that
        comes out must have it (or all of them): a row number, or a list of them where a row is made of several. It is
        taken off again. By default rows stay their samples, unless one is made of several or several are made of one:
        then all are new; `new` decides otherwise. `check` runs the function once more without the column: both runs
        must give the same, as a function that looks at all columns may not; and twice with other numbers, which must
        lead to the same rows, as those that a function computes (a maximum, a sum) do not. Where rows with missing
        cells come out, it is run without their numbers, too: it must not fill in those of dropped rows. A value that it
        moves from row to row beside the column, such as the mean of a group, nobody sees.
        """
        made = self._carried.carry(function, check)
        reached = np.zeros(len(self._data.rows), dtype=bool)
        frames = {}
        for name, (frame, families) in made.items():
            said = _said(function) | ({} if name is None else {"output": name})
            frames[name] = self._hand_on("apply", frame, families, new=new, drops=False, **said)
            reached[families.parents] = True
        self._lineage.drop("apply", self._data, reached, **_said(function))
        if None in frames:
            return frames[None]
        return frames if all(type(name) is str and not name.isdigit() for name in frames) else tuple(frames.values())

    def record(self, children: Any, parents: Sequence[int | Sequence[int]]) -> Any:
        """Register `children`, new samples of your own making: `parents[i]` is the position (or positions) in this
        table that child i was made of. See `Stage.record`."""
        return self._lineage.record(self._data, children, parents)

    # -- how ------------------------------------------------------------------------------------------------------

    @property
    def _one(self) -> Any:
        self._check_one()
        return self._frames[0]

    def _check_one(self) -> None:
        if len(self._frames) != 1:
            raise ValueError(f"this verb takes one table, and the stage has {len(self._frames)}; use apply()")

    @property
    def _rows(self) -> int:
        return self._lengths[0]

    def _with(self, others: Sequence[Any]) -> TableStage:
        self._check_one()
        frames = (*self._given, *others)
        if libraries_of(frames) is None:
            kinds = ", ".join(type(other).__name__ for other in others)
            raise TypeError(f"the other table is a {kinds}; give a frame of the same library")
        return TableStage(self._lineage, frames, self._library)

    def _groups_of(self, frame: Any, by: Sequence[str], members: Numbers) -> NDArray[np.int64]:
        """Which group each row of an aggregated frame is, by the values in the columns `by`."""
        firsts = members.values[np.cumsum(members.sizes) - members.sizes]
        found = self._library.keys(frame, by)
        groups = self._library.keys(self._library.take(self._one, firsts), by)
        places = {_key(key): place for place, key in enumerate(zip(*(groups or ()), strict=True))}
        rows = [places.get(_key(key), -1) for key in zip(*(found or ()), strict=True)]
        if sorted(rows) != list(range(len(members.sizes))):
            raise ValueError(
                f"stage {self._lineage.stage!r}: aggregate() cannot tell which group each row of what came out is: let "
                f"the function keep the columns {', '.join(map(str, by))} as they are and give one row for each group, "
                "or use record(frame, parents)"
            )
        return np.array(rows, dtype=np.int64)

    def _take_off(self, operation: str, numbered: Any, *, new: bool, **said: Any) -> Any:
        return self._hand_on(operation, *self._carried.separate(numbered), new=new, **said)

    def _rows_at(self, operation: str, positions: NDArray[np.int64], **said: Any) -> Any:
        return self._hand_on(operation, self._library.take(self._one, positions), _each(positions), new=False, **said)

    def _hand_on(
        self, operation: str, frame: Any, families: Families, *, new: bool | None, drops: bool = True, **said: Any
    ) -> Any:
        """Write what became of the rows, and have the frame lead back to its samples."""
        sizes = np.diff(families.offsets)
        if len(orphans := np.flatnonzero(sizes == 0)):
            raise ValueError(
                f"stage {self._lineage.stage!r}: row {orphans[0]} of what came out ({len(orphans)} in all) is made of "
                "no row that went in; make rows of nothing before the stage, and register them"
            )
        reached = np.zeros(len(self._data.rows), dtype=bool)
        reached[families.parents] = True
        one_each = bool((sizes == 1).all())
        if new is None:
            new = not one_each or int(reached.sum()) < len(families)
        if new and len(families):
            self._lineage.derive(operation, self._data, frame, families, **said)
        elif not one_each:
            raise ValueError(f"stage {self._lineage.stage!r}: rows are made of several; they cannot stay one sample")
        else:
            self._lineage.keep(operation, self._data, np.flatnonzero(reached), None, **said)
            self._adopt(frame, families.parents)
        if drops:
            self._lineage.drop(operation, self._data, reached, **said)
        return frame

    def _adopt(self, frame: Any, positions: NDArray[np.int64]) -> Any:
        self._lineage.registry.adopt(frame, select_resolved(self._data, positions))
        return frame


def _each(positions: NDArray[np.int64]) -> Families:
    """One parent for each row."""
    return Families(np.arange(len(positions) + 1), positions)


def _key(values: Sequence[Any]) -> tuple[Any, ...]:
    """Values of a group that are equal where a library's are: NaN is one value, and so is a list of the same items."""
    plain = [repr(value) if isinstance(value, list | dict | np.ndarray) else value for value in values]
    return tuple(NAN if isinstance(value, float) and value != value else value for value in plain)


def _by_share(parts: Mapping[str, float], rows: int, seed: int) -> list[str | None]:
    """A part's name for each row, by the shares; None for what is left over."""
    named: list[str | None] = [None] * rows
    order = np.random.default_rng(seed).permutation(rows).tolist()
    stops = [round(stop * rows) for stop in np.cumsum(list(parts.values())).tolist()]
    for name, start, stop in zip(parts, [0, *stops], stops, strict=False):
        for row in order[start:stop]:
            named[row] = name
    return named


def _names(columns: Names) -> list[str]:
    return [columns] if isinstance(columns, str) else list(columns)


def _said(function: Callable[..., Any]) -> dict[str, Any]:
    return {"code": function}


def _written(**arguments: Any) -> dict[str, str] | None:
    """Arguments that are expressions, as their library writes them; masks are left out: the entry has what they say."""
    words = {name: str(value) for name, value in arguments.items() if not hasattr(value, "__len__")}
    return {name: text for name, text in words.items() if len(text) < 4096} or None
