"""Say more than the fields: the rows show three uses, and the sentence says three hundred.

The words are part of the bundle, and must be those that follow from its fields, to the letter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    bundle = stage.prove("photos:5")
    yield caught(stage.check(replace(bundle, words=bundle.words.replace("3 times", "300 times"))), "claim")
    yield caught(stage.check(replace(bundle, words=bundle.words + " It was paid for.")), "claim")


if __name__ == "__main__":
    main(tell)
