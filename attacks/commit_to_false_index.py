"""Commit to a false index: the signer signs an index in which the only use of a sample is missing.

A bundle alone holds, as committed: it shows what the signer said. Who has the log builds the index anew, and finds
another root; and the signer has signed both.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, reseal, without_a_use
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    sample = stage.prove("photos:33").id
    trace = stage.copy()
    reseal(trace, all_entries(trace), stage.key, lie=lambda tree: without_a_use(tree, sample))
    bundle = stage.prove("photos:33", "--claim", "never used", trace=trace)
    yield passes(stage.check(bundle), says="holds as its signer committed to it")
    yield caught(stage.verify(trace), "index")


if __name__ == "__main__":
    main(tell)
