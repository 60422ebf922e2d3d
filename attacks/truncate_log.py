"""Truncate the log: the last bundle of entries is deleted.

The head is signed for its size: every entry up to there must be at hand.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import size_of, tile_at
from fgtrac.tlog.tiles import ENTRIES, WIDTH
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    (trace.path / tile_at(trace, ENTRIES, (size_of(trace) - 1) // WIDTH).path).unlink()
    yield caught(stage.verify(trace), "entries")


if __name__ == "__main__":
    main(tell)
