"""Lose a seal's note: the signed note of an older full seal goes.

Proofs that were given away rest on it, and the log says that it was there.
"""

from __future__ import annotations

from collections.abc import Iterator

from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    (trace.path / f"index/{trace.full_seals()[0]}/checkpoint").unlink()
    yield caught(stage.verify(trace), "seals")


if __name__ == "__main__":
    main(tell)
