"""Insert an entry: one more of a known form joins a bundle, and those behind it move down.

A signed head says how many entries there are, and so how many each bundle holds.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, find, put, tile_at, with_another_sample
from fgtrac.events.schema import encode_event
from fgtrac.tlog.tiles import ENTRIES, encode_bundle
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    entries = all_entries(trace)
    entries.insert(number, encode_event(with_another_sample(event)))
    put(trace, tile_at(trace, ENTRIES, 0).path, encode_bundle(entries))
    yield caught(stage.verify(trace), "entries")


if __name__ == "__main__":
    main(tell)
