"""Claim something else: a bundle of a sample that was used says that it never was.

What is claimed must follow from the rows that are shown, and all of them are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    bundle = stage.prove("photos:5", "--claim", "history")
    words = bundle.words.replace("The whole history of t", "T").replace(" is 1 x registered", " was never used")
    yield caught(stage.check(replace(bundle, claim="never used", words=words)), "claim")


if __name__ == "__main__":
    main(tell)
