"""Commit to a false index: the signer signs an index in which one use is missing.

Nobody but the log contradicts it: the index built from that has another root.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, reseal, without_a_use
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    reseal(trace, all_entries(trace), stage.key, lie=without_a_use)
    yield caught(stage.verify(trace), "index")


if __name__ == "__main__":
    main(tell)
