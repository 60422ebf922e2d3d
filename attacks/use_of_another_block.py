"""Show the entry of another block as evidence: the signer's index gives photo 36 a use that was a crop's.

Ordinals count within a block. A bundle with its entries is held against them; without, it holds as committed; and the
log gives another index.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fgtrac.demo.forge import all_entries, find, reseal, with_rows
from fgtrac.events.postings import KIND, decode_rows
from fgtrac.tlog import index
from fgtrac.tlog.index import SAMPLE, Tree
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace, sample = stage.copy(), stage.prove("photos:36").id
    number, use = find(trace, "use")

    def add_use(tree: Tree) -> Tree:
        leaf = index.find(tree, SAMPLE, sample)
        assert leaf is not None
        rows = decode_rows(index.value_at(tree, leaf))
        row = np.array([(KIND["used"], 1, number, int(use["step"].max()))], dtype=rows.dtype)
        return with_rows(tree, leaf, np.sort(np.concatenate([rows, row]), order=["entry", "kind", "detail", "step"]))

    reseal(trace, all_entries(trace), stage.key, lie=add_use)
    yield passes(stage.check(stage.prove("photos:36", trace=trace)), says="holds as committed at size")
    yield caught(stage.verify(trace), "index")


if __name__ == "__main__":
    main(tell)
