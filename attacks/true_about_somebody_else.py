"""Tell the truth about somebody else: asked about photo 6, the liar hands over the bundle of photo 5.

It holds, and its sentence says whom it is about. A verifier who says whom he asked about need not read it.
"""

from __future__ import annotations

from collections.abc import Iterator

from lying import Act, Stage, caught, holds, main


def tell(stage: Stage) -> Iterator[Act]:
    bundle = stage.prove("photos:5")
    yield holds(stage.check(bundle), says="the sample with key 5")
    yield caught(stage.check(bundle, "--about", "photos:6"), "about")


if __name__ == "__main__":
    main(tell)
