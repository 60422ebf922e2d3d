"""Sign with a key that was replaced: after a rotation, the old key signs a head once more.

The log says from which entry on the new key signs. Who still trusts the old one is led to the new one; a head that
holds the rotation and is signed by the old key is refuted.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import head_of, put, signed_note
from lying import Act, Stage, caught, holds, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    rotated = stage.fgtrac("key", "rotate", trace.path, key_file=trace.path.with_name("key.pem"))
    assert rotated.code == 0, rotated.rest
    yield holds(stage.verify(trace), says="(key), signed by the key that you named")
    put(trace, "checkpoint", signed_note(head_of(trace), stage.key))
    yield caught(stage.verify(trace), "signature")


if __name__ == "__main__":
    main(tell)
