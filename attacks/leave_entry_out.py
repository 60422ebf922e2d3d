"""Leave an entry out: the signer drops a recorded batch, builds everything anew and signs it.

Each writer counts its entries, and now one number is missing.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.lies import drop_entry_and_sign
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    drop_entry_and_sign(trace, stage.key)
    yield caught(stage.verify(trace), "sequences")


if __name__ == "__main__":
    main(tell)
