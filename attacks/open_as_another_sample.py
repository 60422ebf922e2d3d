"""Open an id as another sample's: the bundle of photo 5 says that it is about photo 6.

The opening of a keyed id gives the id of one name, and no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.events.identity import preimage
from lying import Act, Stage, caught, main, reworded


def tell(stage: Stage) -> Iterator[Act]:
    bundle = stage.prove("photos:5")
    yield caught(stage.check(reworded(replace(bundle, preimage=preimage("photos", 6)))), "identity")
    nameless = reworded(replace(bundle, preimage=None))
    yield caught(stage.check(nameless), "identity")


if __name__ == "__main__":
    main(tell)
