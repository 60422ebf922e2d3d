"""Swap a checkpoint: the file of one saved model takes the place of another's.

The log holds the SHA-256 of each.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.lies import swap_artifact
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    swap_artifact(trace, stage.key)
    yield caught(stage.verify(trace), "artifacts")


if __name__ == "__main__":
    main(tell)
