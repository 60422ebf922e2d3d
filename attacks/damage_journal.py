"""Damage the journal: an entry that waits to be sealed loses its last byte to another.

Frames are checksummed; the damaged one is reported, and the others are kept.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, put
from fgtrac.store.journal import encode_frame, segment_name
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    frame = encode_frame(all_entries(trace)[0])
    put(trace, f"journal/{segment_name(bytes(16), 0)}", frame[:-1] + bytes([frame[-1] ^ 1]) + frame)
    yield caught(stage.verify(trace), "journal")


if __name__ == "__main__":
    main(tell)
