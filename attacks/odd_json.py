"""Write odd JSON: a key stands twice, so that two readers read two bundles; a number is none.

A bundle is strict JSON with one meaning. Anything else is malformed, and nothing is said of its claim.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.verify.bundle import format_bundle
from lying import Act, Stage, main, refused


def tell(stage: Stage) -> Iterator[Act]:
    data = format_bundle(stage.prove("photos:5"))
    twice = data.replace(b'"claim":"used"', b'"claim":"never used",\n"claim":"used"')
    yield refused(stage.check(twice), 2, says="twice")
    for number in (b"NaN", b"1e3", b"1.0"):
        yield refused(stage.check(data.replace(b'"rows":[[1,', b'"rows":[[' + number + b",")), 2, says="whole number")
    yield refused(stage.check(data[:-3]), 2, says="JSON")


if __name__ == "__main__":
    main(tell)
