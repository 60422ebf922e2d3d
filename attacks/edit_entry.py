"""Edit an entry: one sample of a recorded batch becomes another.

Nothing else is touched, so the entry no longer has the hash that its tile holds.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.lies import edit_entry
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    edit_entry(trace, stage.key)
    yield caught(stage.verify(trace), "entries")


if __name__ == "__main__":
    main(tell)
