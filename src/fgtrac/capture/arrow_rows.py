"""Which known rows an Arrow table has, told by the memory that they lie in.

Arrow tables are immutable, and slicing, concatenating, and dropping, renaming or adding columns leave the buffers of
the others where they are: a row is told by a buffer's address and a place in it, through all that does not copy rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Known = TypeVar("Known")
Memory = tuple[int, ...]  # the addresses of a chunk's buffers


@dataclass(frozen=True, slots=True)
class Stretch(Generic[Known]):
    """Rows `start` to `stop` of the table that `known` was given for."""

    known: Known
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Piece(Generic[Known]):
    """`stop - start` rows of a chunk, from place `start` of its buffers on, are those from `row` on of a table."""

    start: int
    stop: int
    row: int
    known: Known


class ArrowRows(Generic[Known]):
    """What is known of the rows of Arrow tables. It keeps every table that it was given, so that no other one can come
    to lie at its addresses: of tables on disk that costs no memory, of others what they hold."""

    def __init__(self) -> None:
        self._pieces: dict[Memory, list[_Piece[Known]]] = defaultdict(list)
        self._wholes: dict[tuple[Any, ...], Known] = {}
        self._kept: list[Any] = []

    def add(self, table: Any, known: Known) -> None:
        """Row i of `table` (a pyarrow.Table) is row i of `known`. What is known already stays."""
        self._kept.append(table)
        for column in table.columns:
            chunks = _chunks(column)
            self._wholes.setdefault(tuple(chunks), known)
            row = 0
            for memory, start, length in chunks:
                if memory:
                    self._pieces[memory].append(_Piece(start, start + length, row, known))
                row += length

    def find(self, table: Any) -> list[Stretch[Known]] | None:
        """The rows of `table`, stretch by stretch; None where none is known.

        ValueError where some are known and others not, and where its columns are of different rows.
        """
        found: list[Stretch[Known]] | None = None
        begun = False
        for column in table.columns:
            chunks = _chunks(column)
            if not any(memory for memory, _, _ in chunks):
                continue  # nothing but nulls: it says nothing
            if (known := self._wholes.get(tuple(chunks))) is not None:
                here: list[Stretch[Known]] | None = [Stretch(known, 0, len(column))]
            else:
                stretches = list(self._stretches(chunks))
                begun |= any(stretch is not None for stretch in stretches)
                here = None if None in stretches else _joined([s for s in stretches if s is not None])
            if here is None:
                continue
            if found is not None and here != found:
                raise ValueError(
                    "the columns of this table are of different registered rows; say whose rows it has with "
                    "run.register(data, rows=...)"
                )
            found = here
        if found is None and begun:
            raise ValueError(
                "some rows of this table are registered, and others are not; register each of the tables that it is "
                "made of first"
            )
        return found

    def _stretches(self, chunks: list[tuple[Memory, int, int]]) -> Iterator[Stretch[Known] | None]:
        """Where the rows of a column are known, in order; None in the place of those that are not."""
        for memory, start, length in chunks:
            at, end = start, start + length
            while at < end:
                piece = next((p for p in self._pieces.get(memory, ()) if p.start <= at < p.stop), None)
                if piece is None:
                    yield None
                    break
                stop = min(end, piece.stop)
                yield Stretch(piece.known, piece.row + at - piece.start, piece.row + stop - piece.start)
                at = stop


def _chunks(column: Any) -> list[tuple[Memory, int, int]]:
    """(addresses, place, rows) of each chunk that has rows."""
    found = []
    for chunk in column.chunks:
        if len(chunk):
            buffers = [b for b in chunk.buffers() if b is not None]
            found.append((tuple([b.address for b in buffers]), chunk.offset, len(chunk)))
    return found


def _joined(stretches: list[Stretch[Known]]) -> list[Stretch[Known]]:
    """Stretches that follow one another as one."""
    out: list[Stretch[Known]] = []
    for one in stretches:
        if out and out[-1].known is one.known and out[-1].stop == one.start:
            out[-1] = Stretch(one.known, out[-1].start, one.stop)
        else:
            out.append(one)
    return out
