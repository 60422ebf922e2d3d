"""Hide a child: a photo that was made into crops is shown as never used, without the crop that was.

The entries that made the crops are shown, and say how many there are and which.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.events.postings import decode_rows
from fgtrac.verify.children import made_into, registered_by
from lying import Act, Stage, caught, main, reworded


def tell(stage: Stage) -> Iterator[Act]:
    bundle = stage.prove("photos:0")  # it holds, by the uses of two crops
    first, _second = bundle.children
    yield caught(stage.check(reworded(replace(bundle, children=(first,)))), "children")
    rows = decode_rows(bundle.value or b"")
    own = [e for e in bundle.entries if e.number in {*made_into(rows), *registered_by(rows)}]
    run = stage.prove("photos:36").entries  # what any claim of non-use shows of the run
    entries = tuple(sorted((*own, *run), key=lambda e: e.number))
    lie = replace(bundle, claim="never used", children=(), entries=entries)
    yield caught(stage.check(reworded(lie)), "children")
    yield caught(stage.check(reworded(replace(lie, entries=run))), "entries")


if __name__ == "__main__":
    main(tell)
