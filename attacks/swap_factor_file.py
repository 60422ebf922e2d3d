"""Swap a factor file: the gradients of one checkpoint take the place of another's.

The log holds the SHA-256 of each.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import put
from forge_factors import factor_files
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    first, *_others, last = factor_files(trace)
    put(trace, first, trace.read(last))
    yield caught(stage.verify(trace), "artifacts")


if __name__ == "__main__":
    main(tell)
