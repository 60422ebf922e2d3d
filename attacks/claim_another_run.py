"""Claim another run: the signer's `run` entry names another trace than the head.

A head is signed for one log, and its first entry must agree.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    entries = all_entries(trace)
    entries[0] = encode_event(decode_event(entries[0]) | {"trace": bytes(16)})
    reseal(trace, entries, stage.key)
    yield caught(stage.verify(trace), "run")


if __name__ == "__main__":
    main(tell)
