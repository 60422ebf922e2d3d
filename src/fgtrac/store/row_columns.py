"""The way back from ids to row numbers: for a block of samples whose keys are their rows, the row at each ordinal.

Ids ascend by ordinal, and the id of a row can be computed. So the sample of an id is found by bisection, and what is
kept is four bytes a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.events.identity import make_ids, number_preimages, preimage

PAGE_ROWS = 1 << 16  # row numbers in a page


def pages(rows: NDArray[np.uint32]) -> Iterator[bytes]:
    """The row numbers as they are kept: little endian, `PAGE_ROWS` in each page but the last."""
    for start in range(0, len(rows), PAGE_ROWS):
        yield rows[start : start + PAGE_ROWS].astype("<u4").tobytes()


@dataclass(frozen=True, slots=True)
class RowColumn:
    """One block: the vault that it stands in, its data set, what its ids are made with (`secret` is empty under
    `public`), how many samples it has, and its pages by number."""

    vault: Path
    dataset: str
    block: bytes
    scheme: str
    secret: bytes
    samples: int
    page: Callable[[int], bytes]

    def rows(self, page: int) -> NDArray[np.uint32]:
        """The row numbers in a page. FormatError for one that is damaged."""
        data, count = self.page(page), min(PAGE_ROWS, self.samples - page * PAGE_ROWS)
        damaged = f"{self.vault} is a damaged vault: page {page} of the rows of {self.dataset!r:.60} holds"
        if len(data) != 4 * count:
            raise FormatError(f"{damaged} {len(data)} bytes, which are not {count} row numbers of four bytes")
        found = np.frombuffer(data, "<u4")
        if int(found.max()) >= self.samples:
            raise FormatError(f"{damaged} the row number {found.max()}, and there are {self.samples} rows")
        return found.astype(np.uint32)

    def ids(self, rows: NDArray[np.uint32]) -> bytes:
        """The ids of these rows, one after another."""
        return make_ids(self.scheme, self.secret, number_preimages(self.dataset, rows))

    def each_page(self) -> Iterator[tuple[NDArray[np.uint32], bytes]]:
        """Row numbers and their ids, page by page in ascending order of id."""
        for page in range(-(-self.samples // PAGE_ROWS)):
            rows = self.rows(page)
            yield rows, self.ids(rows)

    def names(self) -> Iterator[tuple[bytes, str, bytes, None]]:
        """(id, data set, CBOR key, no subject) of every sample, by id."""
        for rows, ids in self.each_page():
            for place, row in enumerate(rows.tolist()):
                yield ids[32 * place : 32 * place + 32], self.dataset, encode(row), None

    def id_of(self, key: bytes) -> bytes | None:
        """The id of the sample of a CBOR key, or None where that is no row of the block."""
        try:
            row = decode(key)
        except FormatError:
            return None
        is_row = type(row) is int and 0 <= row < self.samples
        return make_ids(self.scheme, self.secret, [preimage(self.dataset, row)]) if is_row else None

    def find(self, sample_id: bytes) -> int | None:
        """The row of the sample of an id, or None where no sample has it."""
        first, last = 0, -(-self.samples // PAGE_ROWS) - 1
        while first < last:  # the last page whose first id is not behind it
            middle = (first + last + 1) // 2
            first, last = (middle, last) if self.ids(self.rows(middle)[:1]) <= sample_id else (first, middle - 1)
        rows = self.rows(first)
        low, high = 0, len(rows) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.ids(rows[middle : middle + 1]) < sample_id else (low, middle)
        return int(rows[low]) if self.ids(rows[low : low + 1]) == sample_id else None
