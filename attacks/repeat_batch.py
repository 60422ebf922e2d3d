"""Repeat a batch: in place of its own, a batch holds the samples of the one before.

The order of the epoch was announced, and the replay draws it again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fgtrac.demo.forge import all_entries, find, reseal
from fgtrac.events.schema import encode_event
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    first, second = (int(n) for n in event["count"][:2])
    ordinals = event["ordinals"].copy()
    ordinals[first : first + second] = np.resize(ordinals[:first], second)
    lie = {"ordinals": ordinals}
    entries = all_entries(trace)
    entries[number] = encode_event(event | lie)
    reseal(trace, entries, stage.key)
    yield passes(stage.verify(trace), says="that no batch was left out, repeated or exchanged is not shown")
    yield caught(stage.verify(trace, "--replay", "--vault", trace.vault_path), "samplers")


if __name__ == "__main__":
    main(tell)
