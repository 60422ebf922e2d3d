"""Hide a use in the index: one use vanishes from the sample's leaf on disk, whose hashes are made to fit.

The log is the truth: who has it builds the index anew and compares it byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.lies import hide_use_in_index
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    hide_use_in_index(trace, stage.key)
    yield caught(stage.verify(trace), "index")


if __name__ == "__main__":
    main(tell)
