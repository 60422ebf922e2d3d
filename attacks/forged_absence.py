"""Forge an absence: a registered sample is shown as never registered, between leaves that are no neighbours.

What lies between the two is not shown, and that is where the sample is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.store.index_files import load_index
from fgtrac.tlog.index import Absence, prove_leaf
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    tree = load_index(stage.trace.mapped, stage.trace.full_seals()[-1], b"")
    left, victim, right, further = (prove_leaf(tree, at) for at in range(3, 7))
    bundle = stage.prove("id:" + "77" * 32)
    words = bundle.words.replace(bundle.id.hex(), victim.key.hex())
    for absence in (Absence(left, right), Absence(right, further), Absence(left, None), Absence(None, right)):
        yield caught(stage.check(replace(bundle, id=victim.key, absence=absence, words=words)), "index")


if __name__ == "__main__":
    main(tell)
