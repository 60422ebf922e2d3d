"""Forge an absence: a registered sample is shown as never registered, between leaves that are no neighbours.

What lies between the two is not shown, and that is where the sample is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.store.index_files import load_index
from fgtrac.tlog.index import SAMPLE, Absence, find, prove_leaf
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    victim, bundle = stage.prove("photos:5"), stage.prove("id:" + "77" * 32)
    size = stage.trace.full_seals()[-1]
    tree = load_index(stage.trace.mapped, size, b"")
    at = find(tree, SAMPLE, victim.id)
    assert at is not None
    around = Absence(prove_leaf(tree, at - 1), prove_leaf(tree, at + 1))
    beside = Absence(prove_leaf(tree, at + 1), prove_leaf(tree, at + 2))
    end = Absence(prove_leaf(tree, at - 1), None)
    for absence in (around, beside, end):
        words = bundle.words.replace(bundle.id.hex(), victim.id.hex())
        yield caught(stage.check(replace(bundle, id=victim.id, absence=absence, words=words)), "index")


if __name__ == "__main__":
    main(tell)
