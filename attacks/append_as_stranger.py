"""Append as a stranger: entries are added behind the signer's own, whose seals and notes all stay as they were.

Only the newest head is by another key, and it is the newest head that counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.demo.forge import all_entries, put, reseal
from fgtrac.events.schema import encode_event
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    notes = {f"index/{size}/checkpoint": trace.read(f"index/{size}/checkpoint") for size in trace.full_seals()}
    said = {"kind": "metrics", "time": 0, "writer": os.urandom(16), "seq": 0, "step": 0, "values": {"accuracy": 1.0}}
    reseal(trace, [*all_entries(trace), encode_event(said)], Ed25519PrivateKey.generate())
    for path, note in notes.items():
        put(trace, path, note)
    yield caught(stage.verify(trace), "signature")


if __name__ == "__main__":
    main(tell)
