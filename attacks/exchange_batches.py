"""Exchange batches: two neighbours of an epoch change places, as if each had been used when the other was.

Where only the steps change, they go back in the log, and no recording writes that. A liar who moves the batches as well
writes what a loop that reads ahead may do: the replay says what it cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store.trace_dir import TraceDir
from lying import Act, Stage, caught, main, passes, undecided

COLUMNS = ("count", "epoch", "batch", "step", "status", "attribution")


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    exchange(trace, stage, moves=False)
    yield passes(stage.verify(trace), says="that no batch was left out, repeated or exchanged is not shown")
    yield caught(stage.verify(trace, "--replay", "--vault", trace.vault_path), "samplers")
    trace = stage.copy()
    exchange(trace, stage, moves=True)
    yield undecided(stage.verify(trace, "--replay", "--vault", trace.vault_path), "samplers")


def exchange(trace: TraceDir, stage: Stage, *, moves: bool) -> None:
    """Exchange the steps of the updates 2 and 3, and with `moves` the places of their batches, in all entries."""
    entries = all_entries(trace)
    for number, entry in enumerate(entries):
        event = decode_event(entry)
        if event["kind"] == "use" and 2 in event["step"]:
            steps = event["step"].copy()
            steps[event["step"] == 2], steps[event["step"] == 3] = 3, 2
            order = np.argsort(steps, kind="stable") if moves else np.arange(len(steps))
            parts = np.split(event["ordinals"], np.cumsum(event["count"])[:-1])
            lie = {name: (event | {"step": steps})[name][order] for name in COLUMNS}
            entries[number] = encode_event(event | lie | {"ordinals": np.concatenate([parts[n] for n in order])})
    reseal(trace, entries, stage.key)


if __name__ == "__main__":
    main(tell)
