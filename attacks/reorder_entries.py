"""Reorder entries: two neighbours change places.

Each entry is a leaf of a tree, and a leaf has its place.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, find, put, tile_at
from fgtrac.tlog.tiles import ENTRIES, encode_bundle
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, _event = find(trace, "use")
    entries = all_entries(trace)
    entries[number - 1], entries[number] = entries[number], entries[number - 1]
    put(trace, tile_at(trace, ENTRIES, 0).path, encode_bundle(entries))
    yield caught(stage.verify(trace), "entries")


if __name__ == "__main__":
    main(tell)
