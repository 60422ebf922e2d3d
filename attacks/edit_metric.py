"""Edit a metric: the accuracy that was logged last becomes a perfect one; no sample and no index is concerned.

All bytes of all entries are under the signed root, whatever they are about.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, put, put_entry, reseal, size_of, tile_at
from fgtrac.events.schema import encode_event
from fgtrac.tlog.merkle import leaf_hash
from fgtrac.tlog.tiles import read_tile
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    event = {"kind": "metrics", "time": 0, "writer": os.urandom(16), "seq": 0, "step": 0, "values": {"accuracy": 0.5}}
    reseal(trace, [*all_entries(trace), encode_event(event)], stage.key)  # what the signer honestly adds
    lie = encode_event(event | {"values": {"accuracy": 1.0}})
    put_entry(trace, size_of(trace) - 1, lie)
    yield caught(stage.verify(trace), "entries")
    tile = tile_at(trace, 0, 0)
    put(trace, tile.path, read_tile(trace, tile)[:-32] + leaf_hash(lie))
    yield caught(stage.verify(trace), "tiles")


if __name__ == "__main__":
    main(tell)
