"""Swap a score: the signer makes one recorded contribution the largest, builds everything anew and signs it.

A score follows from the factors that the log names, and is computed again.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.lies import change_score_and_sign
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    change_score_and_sign(trace, stage.key)
    yield caught(stage.verify(trace), "contributions")


if __name__ == "__main__":
    main(tell)
