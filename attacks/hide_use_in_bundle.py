"""Hide a use in a bundle: its row is left out, and the sentence counts one use less.

The leaf in the index is over all rows of the sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.events.postings import KIND, ROW, decode_rows
from lying import Act, Stage, caught, main, reworded


def tell(stage: Stage) -> Iterator[Act]:
    bundle = stage.prove("photos:5")
    rows = decode_rows(bundle.value or b"")
    last = int((rows["kind"] == KIND["used"]).nonzero()[0][-1])
    at = last * ROW.itemsize
    value = (bundle.value or b"")[:at] + (bundle.value or b"")[at + ROW.itemsize :]
    yield caught(stage.check(reworded(replace(bundle, value=value))), "index")


if __name__ == "__main__":
    main(tell)
