"""Replace factors: the signer turns the gradients of a file around and lets its entry fit; the scores stay.

A score that does not follow from the factors in the log is refuted, whoever signed them.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import all_entries, find, reseal
from forge_factors import factor_files, put_artifacts, with_other_signs
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    _number, event = find(trace, "contribution")
    path = factor_files(trace, event["step"])[0]
    files = {path: with_other_signs(trace.read(path))}
    reseal(trace, put_artifacts(trace, all_entries(trace), files), stage.key)
    yield caught(stage.verify(trace), "contributions")


if __name__ == "__main__":
    main(tell)
