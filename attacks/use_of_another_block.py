"""Show the entry of another block as evidence: the signer's index gives a photo one use more, in a batch of crops.

Ordinals count within a block. A bundle with its entries is held against them. Without, it holds as committed, and only
the log gives another index.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fgtrac.demo.forge import all_entries, reseal, with_rows
from fgtrac.events.postings import KIND, decode_rows
from fgtrac.events.schema import decode_event
from fgtrac.tlog import index
from fgtrac.tlog.index import SAMPLE, Tree
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace, sample = stage.copy(), stage.prove("photos:5").id
    entries = all_entries(trace)
    uses = {n: e for n, e in enumerate(map(decode_event, entries)) if e["kind"] == "use"}
    crops = next(e["block"] for e in map(decode_event, entries) if e["kind"] == "samples" and e["dataset"] == "crop")
    number, use = next((n, e) for n, e in uses.items() if e["block"] == crops)

    def add_use(tree: Tree) -> Tree:
        leaf = index.find(tree, SAMPLE, sample)
        assert leaf is not None
        rows = decode_rows(index.value_at(tree, leaf))
        row = np.array([(KIND["used"], 1, number, int(use["step"].max()))], dtype=rows.dtype)
        return with_rows(tree, leaf, np.sort(np.concatenate([rows, row]), order=["entry", "kind", "detail", "step"]))

    reseal(trace, entries, stage.key, lie=add_use)
    yield passes(stage.check(stage.prove("photos:5", trace=trace)), says="holds as its signer committed to it")
    yield caught(stage.check(stage.prove("photos:5", "--entries", trace=trace)), "evidence")
    yield caught(stage.verify(trace), "index")


if __name__ == "__main__":
    main(tell)
