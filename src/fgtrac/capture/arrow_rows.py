"""Which known rows an Arrow table has, told by the memory that they lie in.

Arrow tables are immutable, and slicing, concatenating, and dropping or renaming columns leave the buffers of the
others where they are: a row is told by the buffers of its cells and a place in them, through all that does not copy
rows. Other rows may share some of that memory (a column of labels, the offsets of lists): a table has known rows only
where all its columns lie where those of one known table lie, at the same rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Known = TypeVar("Known")
Memory = tuple[Any, ...]  # the addresses that an array's values lie at, with those of its children
Rows = tuple[int, int]  # the number of a known table, and its row at row 0 of the table at hand
Reach = tuple[int, frozenset[Rows] | None]  # up to which row; the known rows that lie there, None of nothing but nulls


class UnsureRowsError(ValueError):
    """A table shares memory with registered rows, and nobody can tell whose rows it has unless the user says so."""


class PartlyKnownError(UnsureRowsError):
    """Some columns of a table lie where those of registered rows lie, and others do not."""


@dataclass(frozen=True, slots=True)
class Stretch(Generic[Known]):
    """Rows `start` to `stop` of the table that `known` was given for."""

    known: Known
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """`stop - start` rows of a chunk, from place `start` of its memory on, are those from `row` on of known table
    `number`."""

    start: int
    stop: int
    row: int
    number: int


class ArrowRows(Generic[Known]):
    """What is known of the rows of Arrow tables. It keeps every table that it was given, so that no other one can come
    to lie at its addresses: of tables on disk that costs no memory, of others what they hold. `are_same` says whether
    two stretches are of the same samples."""

    def __init__(self, are_same: Callable[[Stretch[Known], Stretch[Known]], bool]) -> None:
        self._pieces: dict[Memory, list[_Piece]] = defaultdict(list)
        self._tables: list[tuple[Any, Known]] = []
        self._are_same = are_same

    def add(self, table: Any, known: Known) -> None:
        """Row i of `table` (a pyarrow.Table) is row i of `known`."""
        number = len(self._tables)
        self._tables.append((table, known))
        for column in table.columns:
            row = 0
            for memory, start, length in _chunks(column):
                if memory is not None:
                    self._pieces[memory].append(_Piece(start, start + length, row, number))
                row += length

    def touches(self, table: Any) -> Known | None:
        """What is known of some row that shares memory with `table`."""
        for column in table.columns:
            for _, rows in self._reaches(column):
                if rows:
                    return self._tables[min(rows)[0]][1]
        return None

    def find(self, table: Any) -> list[Stretch[Known]] | None:
        """The rows of `table`, stretch by stretch; None where it lies in the memory of none that is known, and where
        it is nothing but nulls. UnsureRowsError where nobody can tell, ValueError where some rows are known and others
        are not."""
        parts = list(self._parts(table))
        told = [rows for *_, rows in parts if rows is not None]
        if not any(told):
            return None
        in_all = sorted(frozenset.intersection(*told))
        if whole := [rows for rows in in_all if rows[1] == 0 and len(self._tables[rows[0]][0]) == len(table)]:
            return [self._one(0, len(table), whole)]
        if not all(rows for *_, rows in parts):
            raise ValueError(
                "some rows of this table are registered, and others are not; register each of the tables that it is "
                "made of first"
            )
        return _joined([self._one(start, stop, sorted(rows)) for start, stop, rows in parts if rows])

    def _parts(self, table: Any) -> Iterator[tuple[int, int, frozenset[Rows] | None]]:
        """Rows `start` to `stop` of `table` and the known rows that they may be, in all their columns: an empty set
        where no column lies in known memory, None where all are nulls. PartlyKnownError where only some columns do."""
        columns = [(name, list(self._reaches(table.column(n)))) for n, name in enumerate(table.column_names)]
        at, places = 0, [0] * len(columns)
        while columns and at < len(table):
            here = [(name, reaches[place]) for (name, reaches), place in zip(columns, places, strict=True)]
            stop = min(reach for _, (reach, _) in here)
            told = {name: rows for name, (_, rows) in here if rows is not None}
            common = frozenset[Rows]() if not told else frozenset.intersection(*told.values())
            if not common and any(told.values()):
                raise _unsure(told)
            yield at, stop, common if told else None
            at, places = stop, [p + (reach == stop) for p, (_, (reach, _)) in zip(places, here, strict=True)]

    def _reaches(self, column: Any) -> Iterator[Reach]:
        """The known rows that a column lies at, stretch by stretch."""
        last: Reach | None = None
        for one in self._reaches_of_chunks(column):
            if last is not None and last[1] != one[1]:
                yield last
            last = one
        if last is not None:
            yield last

    def _reaches_of_chunks(self, column: Any) -> Iterator[Reach]:
        row = 0
        for memory, start, length in _chunks(column):
            if memory is None:
                yield row + length, None
            pieces, at, end = self._pieces.get(memory, ()) if memory is not None else (), start, start + length
            while at < end and memory is not None:
                mine = [p for p in pieces if p.start <= at < p.stop]
                stop = min([end, *[p.stop for p in mine], *[p.start for p in pieces if p.start > at]])
                yield row + stop - start, frozenset([(p.number, p.row - p.start + start - row) for p in mine])
                at = stop
            row += length

    def _one(self, start: int, stop: int, candidates: list[Rows]) -> Stretch[Known]:
        """The one stretch that rows `start` to `stop` are, if all candidates are the same samples."""
        found = [Stretch(self._tables[number][1], start + row, stop + row) for number, row in candidates]
        if not all(self._are_same(found[0], other) for other in found[1:]):
            raise UnsureRowsError(
                "this table lies in memory that several registered rows share, and nobody can tell which of them it "
                "has; say so with run.register(data, rows=...)"
            )
        return found[0]


def _unsure(told: dict[str, frozenset[Rows]]) -> UnsureRowsError:
    known, others = ([name for name, rows in told.items() if bool(rows) is is_known] for is_known in (True, False))
    if not others:
        return UnsureRowsError(
            "the columns of this table are of different registered rows; say whose rows it has with "
            "run.register(data, rows=...)"
        )
    return PartlyKnownError(
        f"the column {known[0]!r:.60} of this table is a registered one, and {others[0]!r:.60} is not, so that nobody "
        "can tell whether its rows are: where row i is row i of a registered data set, say run.register(data, "
        "rows=THAT); where they are others, give it a name: run.register(data, name=...)"
    )


def _chunks(column: Any) -> list[tuple[Memory | None, int, int]]:
    """(memory, place, rows) of each chunk that has rows; no memory where all are nulls."""
    return [
        (None if chunk.null_count == len(chunk) else _memory(chunk), chunk.offset, len(chunk))
        for chunk in column.chunks
        if len(chunk)
    ]


def _memory(array: Any) -> Memory:
    """All that the values of an array are read from but its own offset: the addresses of its buffers, and of each child
    (and dictionary) the same with the offset of that."""
    kind = array.type
    if hasattr(array, "storage"):  # of an extension type
        return _memory(array.storage)
    addresses = tuple([None if buffer is None else buffer.address for buffer in array.buffers()])
    if hasattr(array, "dictionary"):
        children = [(array.dictionary, array.dictionary.offset)]
    elif not kind.num_fields:
        return (str(kind), *addresses)
    elif hasattr(array, "values"):  # of lists, and of run ends
        ends = [array.run_ends] if hasattr(array, "run_ends") else []
        children = [(child, child.offset) for child in (array.values, *ends)]
    else:
        fields = [array.field(n) for n in range(kind.num_fields)]
        children = [(field, field.offset - array.offset) for field in fields]  # `field` adds what the array is cut by
    inner = [(offset, _memory(child)) for child, offset in children]
    return (kind.id, getattr(kind, "list_size", 0), *addresses, *inner)


def _joined(stretches: list[Stretch[Known]]) -> list[Stretch[Known]]:
    """Stretches that follow one another as one."""
    out: list[Stretch[Known]] = []
    for one in stretches:
        if out and out[-1].known is one.known and out[-1].stop == one.start:
            out[-1] = Stretch(one.known, out[-1].start, one.stop)
        else:
            out.append(one)
    return out
