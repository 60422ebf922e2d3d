"""Omit the announcement: the signer takes out a batch, and with it the entry that said how the epoch would be ordered.

Nothing is left to draw again. That is not green: the replay says of which epoch it cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, find, reseal
from fgtrac.events.schema import encode_event
from lying import Act, Stage, main, undecided


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    columns = ("count", "epoch", "batch", "step", "status", "attribution")
    lie = {name: event[name][:-1] for name in columns} | {"ordinals": event["ordinals"][: -int(event["count"][-1])]}
    entries = all_entries(trace)
    entries[number] = encode_event(event | lie)
    announced, sampler = find(trace, "sampler")
    same = {name: sampler[name] for name in ("time", "writer", "seq")}
    entries[announced] = encode_event({"kind": "metrics", "step": 0, "values": {}} | same)
    reseal(trace, entries, stage.key)
    yield undecided(stage.verify(trace, "--replay", "--vault", trace.vault_path), "samplers")


if __name__ == "__main__":
    main(tell)
