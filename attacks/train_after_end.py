"""Train after the end: the run says that it has ended, and uses one more batch.

The use is in the log and in the index, so no proof of non-use comes of it. Who has the log sees that the end was none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, find, reseal
from fgtrac.events.schema import encode_event
from lying import Act, Stage, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    _number, use = find(trace, "use")
    more = encode_event(use | {"writer": os.urandom(16), "seq": 0, "step": use["step"] + 100})
    reseal(trace, [*all_entries(trace), more], stage.key)
    yield passes(stage.verify(trace), says="no end entry")


if __name__ == "__main__":
    main(tell)
