"""Slip in a file: one that no entry names joins the folder.

What the log does not explain is not part of the record.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import put
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    put(trace, "index/readme.txt", b"all is well\n")
    yield caught(stage.verify(trace), "files")


if __name__ == "__main__":
    main(tell)
