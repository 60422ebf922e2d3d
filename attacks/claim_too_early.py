"""Prove non-use before the end: of a run that may still go on, or lost a part, nothing is known to be absent.

The sentence says so, and the answer is that nobody can tell. Leaving the words out is refuted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from lying import Act, Stage, caught, main, undecided


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    entries = [decode_event(entry) for entry in all_entries(trace)]
    for number, event in enumerate(entries):
        if event["kind"] == "end":
            same = {name: event[name] for name in ("time", "writer", "seq")}
            entries[number] = {"kind": "metrics", "step": 0, "values": {}} | same
    reseal(trace, [encode_event(event) for event in entries], stage.key)
    bundle = stage.prove("photos:36", trace=trace)
    yield undecided(stage.check(bundle), "complete")
    whole = replace(bundle, words=bundle.words.replace(" of a run that has not ended (gaps in its record: 0)", ""))
    yield caught(stage.check(whole), "claim")


if __name__ == "__main__":
    main(tell)
