"""Repeat a batch: in place of its own, a batch holds the samples of the one before; or one is used once more.

The order of the epoch was announced, and the replay draws it again. How often a loop uses a batch no order says: of one
that is used again the replay says that it cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fgtrac.demo.forge import all_entries, find, reseal, reseal_with
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store.trace_dir import TraceDir
from lying import Act, Stage, caught, main, passes, undecided

COLUMNS = ("count", "epoch", "batch", "step", "status", "attribution")


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    first, second = (int(n) for n in event["count"][:2])
    ordinals = event["ordinals"].copy()
    ordinals[first : first + second] = np.resize(ordinals[:first], second)
    lie = {"ordinals": ordinals}
    reseal_with(trace, number, event | lie, stage.key)
    yield passes(stage.verify(trace), says="that no batch was left out, repeated or exchanged is not shown")
    yield caught(stage.verify(trace, "--replay", "--vault", trace.vault_path), "samplers")
    trace = stage.copy()
    use_once_more(trace, stage)
    yield undecided(stage.verify(trace, "--replay", "--vault", trace.vault_path), "samplers")


def use_once_more(trace: TraceDir, stage: Stage) -> None:
    """Let the first batch take part in the last update of its epoch as well, in all entries that have a part of it."""
    entries = all_entries(trace)
    uses = [(number, decode_event(entry)) for number, entry in enumerate(entries)]
    first = [(number, event) for number, event in uses if event["kind"] == "use" and event["step"][0] == 1]
    last = max(event["step"].max() for _, event in first)
    for number, event in first:
        lie = {name: np.append(event[name], event[name][:1]) for name in COLUMNS}
        lie["step"][-1] = last
        lie["ordinals"] = np.append(event["ordinals"], event["ordinals"][: event["count"][0]])
        entries[number] = encode_event(event | lie)
    reseal(trace, entries, stage.key)


if __name__ == "__main__":
    main(tell)
