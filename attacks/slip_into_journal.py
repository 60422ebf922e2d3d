"""Slip an entry into the journal: before anything is sealed, a stranger writes down an epoch's metrics as well.

Frames are checksummed against accidents, and nobody signs them: whoever can write into the folder before a seal writes
the record. Nothing in the log can tell, as of any lie told while recording.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from fgtrac.demo.forge import put
from fgtrac.events.schema import encode_event
from fgtrac.store.journal import encode_frame, segment_name
from lying import Act, Stage, main, passes, undecided


def tell(stage: Stage) -> Iterator[Act]:
    trace, writer = stage.copy(), os.urandom(16)
    said = {"kind": "metrics", "time": 0, "writer": writer, "seq": 0, "step": 9, "values": {"accuracy": 1.0}}
    put(trace, f"journal/{segment_name(writer, 0)}", encode_frame(encode_event(said)))
    yield undecided(stage.verify(trace), "journal")
    stage.seal(trace)
    yield passes(stage.verify(trace), design="an entry that a stranger adds")


if __name__ == "__main__":
    main(tell)
