"""Going over a whole log: its hashes, what its entries say, the index that they give; here, or where a caller says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fgtrac.events.postings import PostingTable, merge
from fgtrac.events.schema import decode_event
from fgtrac.tlog.index import Columns, Tree, build
from fgtrac.tlog.npy import arrays_of, column_digests, npy_header
from fgtrac.verify.checks import TraceFiles
from fgtrac.verify.reading import Range, Told, hash_range, tell_range


@dataclass(frozen=True, slots=True)
class Indexed:
    """What an index is rebuilt from: a log of `size` entries with that root, in which whoever is named is registered;
    its leaf hashes end to end; `entries` reads some again, and raises where one is not what was hashed; the numbers of
    the `seal` entries (at least one) and of the `samples` entries; how many rows and contents there are in all."""

    size: int
    root: bytes
    leaves: bytes | bytearray
    entries: Callable[[Sequence[int]], Iterator[tuple[int, bytes]]]
    seals: Sequence[int]
    registering: Sequence[int]
    postings: int


@dataclass(frozen=True, slots=True)
class Column:
    """The file of a column as it must be: its bytes, and their SHA-256."""

    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """An index as the log gives it: its root, how many leaves, and of the newest one each column's file."""

    root: bytes
    leaves: int
    columns: Mapping[str, Column]


class LogReader(Protocol):
    """What each function gives comes in the order of the log, whoever does the work."""

    def hash(self, ranges: Iterable[Range]) -> Iterator[bytes]:
        """The leaf hashes of the ranges, some bundles' at a time end to end; raises as `hash_range`."""

    def tell(self, ranges: Iterable[Range], leaves: bytes | bytearray) -> Iterator[Told]:
        """Every entry, `leaves` being the hashes that all entries of the log have, end to end; raises as `tell_range`.
        Whoever takes them compares the hashes."""

    def rebuild(self, log: Indexed) -> Iterator[Rebuilt]:
        """The index over the entries before each `seal` entry. CannotTell where this machine cannot do it."""


@dataclass(frozen=True, slots=True)
class InProcess:
    """All of it in this process, the index in memory."""

    files: TraceFiles

    def hash(self, ranges: Iterable[Range]) -> Iterator[bytes]:
        """As `LogReader.hash`."""
        for one in ranges:
            yield from hash_range(self.files, one)

    def tell(self, ranges: Iterable[Range], _leaves: bytes | bytearray) -> Iterator[Told]:
        """As `LogReader.tell`."""
        for one in ranges:
            yield from tell_range(self.files, one)

    def rebuild(self, log: Indexed) -> Iterator[Rebuilt]:
        """As `LogReader.rebuild`."""
        table, tree, start = PostingTable(), None, 0
        for number in log.seals:
            for n, entry in log.entries(range(start, number)):
                table.add(n, decode_event(entry))
            columns, start = table.take(), number
            if tree is not None:
                old = tree.columns
                columns = merge((old.keys, old.offsets, old.values), columns)
            tree = build(Columns(*columns), tree)
            yield Rebuilt(tree.root, len(tree), _columns(tree) if number == log.seals[-1] else {})


def _columns(tree: Tree) -> dict[str, Column]:
    digests = column_digests(tree)
    return {
        name: Column(len(npy_header(array)) + array.nbytes, digests[name]) for name, array in arrays_of(tree).items()
    }
