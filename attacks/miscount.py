"""Miscount: the signer's log has a gap in place of a batch, and its seal counts none.

A bundle rests on what the seal counts, and holds as committed. Who has the log counts again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from fgtrac.demo.forge import find, reseal_with
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    gap = {"kind": "gap", "reason": "a worker died", "time": event["time"], "writer": os.urandom(16), "seq": 0}
    lost = {"lost_writer": event["writer"], "first": event["seq"], "stop": event["seq"] + 1}
    reseal_with(trace, number, gap | lost, stage.key, without="gap")
    yield passes(stage.check(stage.prove("photos:36", trace=trace)), says="holds as its signer committed to it")
    yield caught(stage.verify(trace), "index")


if __name__ == "__main__":
    main(tell)
