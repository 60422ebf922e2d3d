"""Prove non-use against an older seal: the sample was first used in the last epoch.

Under the older head the proof is true, and says of which size. Under the newest one, the older seal is not the last
leaf.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lying import Act, Stage, caught, holds, main


def tell(stage: Stage) -> Iterator[Act]:
    older = stage.copy("older")
    bundle = stage.prove("photos:33", "--claim", "never used", trace=older)
    yield holds(stage.check(bundle), says="no optimizer update ever used it")
    newest = replace(bundle.proof, note=stage.trace.read("checkpoint"))
    yield caught(stage.check(replace(bundle, proof=newest)), "seal")


if __name__ == "__main__":
    main(tell)
