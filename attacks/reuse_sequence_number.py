"""Reuse (writer, seq): the signer files two different batches under one number of one writer.

Who asks for number seq of a writer would get whichever suits; a sequence only ever goes up by one.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, find, reseal, with_another_sample
from fgtrac.events.schema import encode_event
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    entries = all_entries(trace)
    entries.insert(number + 1, encode_event(with_another_sample(event)))
    reseal(trace, entries, stage.key)
    yield caught(stage.verify(trace), "sequences")


if __name__ == "__main__":
    main(tell)
