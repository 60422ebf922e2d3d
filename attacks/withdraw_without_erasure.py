"""Withdraw without an erasure: the signer removes a saved model and says that a subject's erasure took it.

Files may go where a subject is erased; the check of artifacts then cannot tell. But an erasure is of a subject that has
samples, and names them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    model = min(trace.path.glob("artifacts/checkpoint-*"))
    model.unlink()
    entries = all_entries(trace)
    use = next(event for event in map(decode_event, entries) if event["kind"] == "use")
    said = {"kind": "erasure", "time": 0, "writer": os.urandom(16), "seq": 0, "pseudonym": os.urandom(32)}
    files = {"artifacts": [str(model.relative_to(trace.path))]}
    lie = encode_event(said | files | {"block": use["block"], "ordinals": use["ordinals"][:0]})
    reseal(trace, [*entries, lie], stage.key)
    yield caught(stage.verify(trace), "erasures")


if __name__ == "__main__":
    main(tell)
