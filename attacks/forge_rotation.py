"""Forge a rotation: a thief appends a `key` entry that puts his own key in place, and signs with it.

The key before must have signed the rotation too, and it did not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.demo.forge import all_entries, head_of, reseal
from fgtrac.events.schema import encode_event
from fgtrac.verify.keys import rotation_message
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace, thief = stage.copy(), Ed25519PrivateKey.generate()
    old, new = stage.key.public_key().public_bytes_raw(), thief.public_key().public_bytes_raw()
    message = rotation_message(bytes.fromhex(head_of(trace).origin.removeprefix("fgtrac/")), old, new, False)
    said = {"kind": "key", "time": 0, "writer": os.urandom(16), "seq": 0, "public_key": new}
    entry = encode_event(said | {"old_signature": thief.sign(message), "new_signature": thief.sign(message)})
    reseal(trace, [*all_entries(trace), entry], thief)
    yield caught(stage.verify(trace), "signature")


if __name__ == "__main__":
    main(tell)
