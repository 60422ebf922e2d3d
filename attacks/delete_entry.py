"""Delete an entry: it goes from its bundle, and those behind it move up.

A signed head says how many entries there are, and so how many each bundle holds.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, put, tile_at
from fgtrac.tlog.tiles import ENTRIES, encode_bundle
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    entries = all_entries(trace)
    del entries[20]
    put(trace, tile_at(trace, ENTRIES, 0).path, encode_bundle(entries))
    yield caught(stage.verify(trace), "entries")


if __name__ == "__main__":
    main(tell)
