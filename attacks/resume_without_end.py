"""Resume without an end: the run ended once, went on, and was broken off; what it did since then may be missing.

A seal counts its `end` entries and gives them no order, so that a bundle of a sample that was never used still holds,
as committed. Who has the log sees that the last stretch has no end.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from lying import Act, Stage, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    events = [decode_event(entry) for entry in all_entries(trace)]
    last = max(number for number, event in enumerate(events) if event["kind"] == "end")
    same = {name: events[last][name] for name in ("time", "writer", "seq")}
    events[last] = {"kind": "metrics", "step": 0, "values": {}} | same
    reseal(trace, [encode_event(event) for event in events], stage.key)
    yield passes(stage.check(stage.prove("photos:36", trace=trace)), says="holds as its signer committed to it")
    yield passes(stage.verify(trace), says="no end entry")


if __name__ == "__main__":
    main(tell)
