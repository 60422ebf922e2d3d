"""Show a proof for another tree size: the sample's leaf has its path in the index of the older seal.

A path belongs to one size: it has the length and the turns that this size implies, and leads to its root only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    bundle, older = stage.prove("photos:5"), stage.prove("photos:5", trace=stage.copy("older"))
    yield caught(stage.check(replace(bundle, leaf=older.leaf)), "index")
    yield caught(stage.check(replace(bundle, proof=replace(bundle.proof, path=older.proof.path))), "seal")


if __name__ == "__main__":
    main(tell)
