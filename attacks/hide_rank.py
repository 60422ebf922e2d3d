"""Hide a rank: the signer's training had three ranks, and the log has the entries of one, which says three.

Where rank 0 ends a training, it has seen the others leave, or writes a `gap`. A proof of non-use shows every `join`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from lying import Act, Stage, caught, main, undecided


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    events = [decode_event(entry) for entry in all_entries(trace)]
    last = max(number for number, event in enumerate(events) if event["kind"] == "end")
    began = events[last]["writer"]
    mine = {"time": events[last]["time"], "writer": os.urandom(16), "seq": 0}
    said = {"rank": 1, "ranks": 3, "step": _step(events, began), "began": [began, 0]}
    join = {"kind": "join", **said, **mine}
    events[last:last] = [join, {"kind": "leave", **mine, "seq": 1}]
    reseal(trace, [encode_event(event) for event in events], stage.key)
    yield caught(stage.verify(trace), "sequences", says="says 3 ranks, and of 2 of them the record is not whole")
    yield undecided(stage.check(stage.prove("photos:36", trace=trace)), "complete")


def _step(events: list[dict[str, object]], began: bytes) -> object:
    """The step that the last start goes on from."""
    return next(event.get("step", 0) for event in events if (event["writer"], event["seq"]) == (began, 0))


if __name__ == "__main__":
    main(tell)
