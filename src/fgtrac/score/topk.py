"""The k largest (or smallest) scores of each target, kept while blocks of scores go by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fgtrac.score.gradients import Floats

SOME_ROWS = 256


class TopK:
    """The k best of each of m targets. Of equal scores the earlier row is the better one, however rows are cut."""

    def __init__(self, m: int, k: int, *, largest: bool) -> None:
        self._m, self._k, self._largest = m, k, largest
        self._columns = np.empty(0, dtype=np.int64)
        self._rows = np.empty(0, dtype=np.int64)
        self._scores = np.empty(0, dtype=np.float32)
        self._bar: Floats | None = None  # the k-th best of each target as of the last merge
        self._hits = np.empty((0, m), dtype=bool)
        self._seen = 0

    def add(self, first: int, block: Floats) -> None:
        """A block (b, m) of scores, of the rows from `first` on; rows ascend from block to block."""
        self._seen += len(block)
        if len(self._hits) < len(block):
            self._hits = np.empty(block.shape, dtype=bool)
        hits = self._hits[: len(block)]
        if self._bar is not None:
            (np.greater if self._largest else np.less)(block, self._bar, out=hits)
        elif len(block) > self._k:
            (np.greater_equal if self._largest else np.less_equal)(block, self._first_bar(block), out=hits)
        else:
            hits[:] = True
        rows, columns = np.divmod(np.flatnonzero(hits), self._m)
        self._columns = np.append(self._columns, columns)
        self._rows = np.append(self._rows, rows + first)
        self._scores = np.append(self._scores, block[rows, columns])
        if self._bar is None or len(self._rows) > 3 * self._m * self._k:
            self._merge()

    def result(self) -> tuple[NDArray[np.int64], Floats]:
        """Rows and scores, (m, k) each, the best first."""
        self._merge()
        shape = (self._m, -1)
        return self._rows.reshape(shape), self._scores.reshape(shape)

    def _first_bar(self, block: Floats) -> Floats:
        """(m,): the k-th best of the first few rows, which the k-th best of all is not worse than."""
        some = np.ascontiguousarray(block[: max(SOME_ROWS, 4 * self._k)].T)
        place = some.shape[1] - self._k if self._largest else self._k - 1
        bar: Floats = np.partition(some, place, axis=1)[:, place]
        return bar

    def _merge(self) -> None:
        ranks = ranks_of(-self._scores if self._largest else self._scores)
        order = np.argsort(self._columns << 32 | ranks, kind="stable")  # earlier rows stand first already
        columns = self._columns[order]
        counts = np.bincount(columns, minlength=self._m)
        within = np.arange(len(columns)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = order[within < self._k]
        self._columns, self._rows, self._scores = self._columns[kept], self._rows[kept], self._scores[kept]
        if self._seen >= self._k:
            self._bar = self._scores.reshape(self._m, self._k)[:, -1].copy()


def best_of(
    parts: Sequence[tuple[NDArray[np.int64], Floats]], k: int, *, largest: bool
) -> tuple[NDArray[np.int64], Floats]:
    """Rows and scores, (m, up to k) each, of those of several ranges of rows in their order: as if one had seen all."""
    rows, scores = (np.concatenate(column, axis=1) for column in zip(*parts, strict=True))
    order = np.argsort(ranks_of(-scores if largest else scores), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def ranks_of(scores: Floats) -> NDArray[np.int64]:
    """Numbers below 2^32 in the order of the scores: equal for equal ones (0 and -0 too)."""
    bits = (scores + np.float32(0)).view(np.uint32).astype(np.int64)
    return np.where(bits >> 31, 0xFFFFFFFF - bits, bits + (1 << 31))
