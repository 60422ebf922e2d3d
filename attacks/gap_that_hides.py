"""Hide behind a gap: the signer replaces a recorded batch by a `gap` entry, as if it had been lost.

The log then says that something was lost, and so does every answer: the trace holds with that note, and of a sample
that may have been in the batch nobody can tell that it was never used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from fgtrac.demo.forge import find, reseal_with
from lying import Act, Stage, main, passes, undecided


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    gap = {"kind": "gap", "reason": "a worker died", "time": event["time"], "writer": os.urandom(16), "seq": 0}
    lost = {"lost_writer": event["writer"], "first": event["seq"], "stop": event["seq"] + 1}
    reseal_with(trace, number, gap | lost, stage.key)
    yield passes(stage.verify(trace), says="says that something was lost")
    yield undecided(stage.check(stage.prove("photos:36", trace=trace)), "complete")


if __name__ == "__main__":
    main(tell)
