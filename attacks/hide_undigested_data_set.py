"""Hide a data set whose contents nobody digested: the signer leaves out the entry that describes it.

A content that only it holds is then shown as absent, with all data sets that the log describes. A bundle alone holds,
as committed; who has the log sees samples of a data set that no entry describes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace, rows = stage.copy(), stage.room() / "rows.npy"
    events = [decode_event(entry) for entry in all_entries(trace)]
    for number, event in enumerate(events):
        if event["kind"] == "dataset" and event["name"] == "spare":
            same = {name: event[name] for name in ("time", "writer", "seq")}
            events[number] = {"kind": "metrics", "step": 0, "values": {}} | same
    reseal(trace, [encode_event(event) for event in events], stage.key)
    np.save(rows, np.full((1, 4), 7, dtype="<f4"))
    bundle = stage.prove(f"row:{rows}:0", trace=trace)
    yield passes(stage.check(bundle, "--id-key", trace.vault_path), says="holds as its signer committed to it")
    yield caught(stage.verify(trace), "registered")


if __name__ == "__main__":
    main(tell)
