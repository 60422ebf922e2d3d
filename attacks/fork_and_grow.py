"""Fork and grow: the signer goes on from a rewritten past, with more entries than were ever signed.

The head is newer than any that somebody kept. Consistency is about the beginning: the older head (--since) shows that
it is another one, and the signer's own memory refuses to go on from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, find, reseal, with_another_sample
from fgtrac.events.schema import encode_event
from lying import Act, Stage, caught, main, passes, refused


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    entries = all_entries(trace)
    entries[number] = encode_event(with_another_sample(event))
    more = {"kind": "metrics", "time": 0, "writer": os.urandom(16), "seq": 0, "step": 0, "values": {}}
    reseal(trace, [*entries, encode_event(more)], stage.key)
    yield passes(stage.verify(trace), says="not rolled back, or rewritten and signed again, is not shown")
    yield caught(stage.verify(trace, "--since", stage.trace.path / "checkpoint"), "since")
    yield refused(stage.seal(trace), 1, says="a fork of the one that was sealed")


if __name__ == "__main__":
    main(tell)
