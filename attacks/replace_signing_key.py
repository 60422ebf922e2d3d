"""Replace the signing key: a thief rewrites the log, names his own key in its `run` entry, and signs with it.

The log now agrees with itself. The verifier's key is still another.
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace, thief = stage.copy(), Ed25519PrivateKey.generate()
    entries = all_entries(trace)
    run = decode_event(entries[0])
    entries[0] = encode_event(run | {"public_key": thief.public_key().public_bytes_raw()})
    reseal(trace, entries, thief)
    yield caught(stage.verify(trace), "signature")


if __name__ == "__main__":
    main(tell)
