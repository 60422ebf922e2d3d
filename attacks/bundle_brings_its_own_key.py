"""Bring the key along: a thief signs the head of a bundle himself, and writes his key into it.

A bundle has no field for a key: the verifier names it, and without one nobody can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.demo.forge import signed_note
from fgtrac.verify.bundle import format_bundle, head_of
from lying import Act, Stage, caught, main, refused, undecided


def tell(stage: Stage) -> Iterator[Act]:
    thief, bundle = Ed25519PrivateKey.generate(), stage.prove("photos:5")
    lie = replace(bundle, proof=replace(bundle.proof, note=signed_note(head_of(bundle), thief)))
    yield caught(stage.check(lie), "signature")
    yield undecided(stage.check(lie, has_key=False), "signature")
    key = thief.public_key().public_bytes_raw().hex()
    with_key = format_bundle(lie).replace(b'"claim"', f'"key":"{key}",\n"claim"'.encode())
    yield refused(stage.check(with_key, has_key=False), 2, says="the unknown 'key'")


if __name__ == "__main__":
    main(tell)
