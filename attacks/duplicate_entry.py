"""Duplicate an entry: a recorded batch takes the place of its neighbour, and so stands twice.

The neighbour's leaf in the tree is another.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, find, put_entry
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, _event = find(trace, "use")
    put_entry(trace, number - 1, all_entries(trace)[number])
    yield caught(stage.verify(trace), "entries")


if __name__ == "__main__":
    main(tell)
