"""Edit an entry and its hash: one sample becomes another, and the hash in its tile is made to fit.

The entry now fits its tile, and the tile no longer leads to the root that is signed.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.lies import edit_entry_and_hash
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    edit_entry_and_hash(trace, stage.key)
    yield caught(stage.verify(trace), "tiles")


if __name__ == "__main__":
    main(tell)
