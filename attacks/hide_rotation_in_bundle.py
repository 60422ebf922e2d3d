"""Hide a rotation in a bundle: the `key` entry that leads from the verifier's key to the signer's is left out.

The seal counts its `key` entries, and every claim needs all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lying import Act, Stage, caught, holds, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    rotated = stage.fgtrac("key", "rotate", trace.path, key_file=trace.path.with_name("key.pem"))
    assert rotated.code == 0, rotated.rest
    bundle = stage.prove("photos:36", trace=trace)
    yield holds(stage.check(bundle), says="(key), signed by the key that you named")
    yield caught(stage.check(replace(bundle, entries=())), "entries")


if __name__ == "__main__":
    main(tell)
