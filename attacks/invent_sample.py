"""Invent a sample: the signer names one in a batch that was never registered.

Whatever names a sample comes after its registration.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import find, reseal_with
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    ordinals = event["ordinals"].copy()
    ordinals[0] = 2**32 - 1
    reseal_with(trace, number, event | {"ordinals": ordinals}, stage.key, skip=number)
    yield caught(stage.verify(trace), "registered")


if __name__ == "__main__":
    main(tell)
