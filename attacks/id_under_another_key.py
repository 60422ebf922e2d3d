"""Register a sample under another key than the committed one: under that, the sample is not there.

With the committed id key the absence of its name holds; it says that this rests on every id being derived from it. Who
is given the vault computes every id again: samples that it does not know leave open who they are, and one that it gives
a name to must have the id of that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace

from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.identity import block_id, preimage
from fgtrac.events.schema import decode_event, encode_event
from lying import Act, Stage, caught, main, passes, reworded, undecided


def tell(stage: Stage) -> Iterator[Act]:
    trace, sample = stage.copy(), stage.prove("spare:2").id
    other = sample[:-1] + bytes([sample[-1] ^ 1])  # as any other key would give it
    events, blocks = [decode_event(entry) for entry in all_entries(trace)], {}
    for event in events:
        if event["kind"] == "samples" and event["dataset"] == "spare":
            event["ids"] = event["ids"].replace(sample, other)
            blocks[event["block"]] = block_id(event["ids"])
    entries = [
        encode_event(e | ({"block": blocks.get(e["block"], e["block"])} if "block" in e else {})) for e in events
    ]
    reseal(trace, entries, stage.key)
    hidden = trace.vault_path.rename(trace.path.with_name("hidden.vault"))
    bare = stage.prove("id:" + sample.hex(), trace=trace)
    hidden.rename(trace.vault_path)
    named = stage.prove("photos:99", trace=trace)
    lie = reworded(replace(named, id=sample, preimage=preimage("spare", 2), absence=bare.absence))
    yield passes(stage.check(lie, "--id-key", trace.vault_path), says="This rests on every id")
    yield passes(stage.verify(trace), says="that the registered ids are those of the samples' names is not shown")
    yield undecided(stage.verify(trace, "--vault", trace.vault_path), "vault")
    with sqlite3.connect(trace.vault_path) as vault:
        vault.executemany("UPDATE row_columns SET block = ? WHERE block = ?", [(b, a) for a, b in blocks.items()])
    vault.close()
    yield caught(stage.verify(trace, "--vault", trace.vault_path), "vault")


if __name__ == "__main__":
    main(tell)
