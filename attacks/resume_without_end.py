"""Resume without an end: the run ended once, went on, and was broken off; what it did since then may be missing.

A proof of non-use shows every `end` and every `resume` entry, and no end is behind the last resume. Leaving that out is
refuted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from lying import Act, Stage, caught, main, passes, reworded, undecided


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    events = [decode_event(entry) for entry in all_entries(trace)]
    last = max(number for number, event in enumerate(events) if event["kind"] == "end")
    same = {name: events[last][name] for name in ("time", "writer", "seq")}
    events[last] = {"kind": "metrics", "step": 0, "values": {}} | same
    reseal(trace, [encode_event(event) for event in events], stage.key)
    bundle = stage.prove("photos:36", trace=trace)
    yield undecided(stage.check(bundle), "complete")
    ends = tuple(e for e in bundle.entries if decode_event(e.entry)["kind"] != "resume")
    yield caught(stage.check(reworded(replace(bundle, entries=ends))), "entries")
    yield passes(stage.verify(trace), says="no end entry")


if __name__ == "__main__":
    main(tell)
