"""Hide a resume: a bundle of a sample that was used leaves out that the run went back and went on.

The seal counts its entries by kind, so all of a kind are shown or the claim is refuted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.events.schema import decode_event
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    bundle = stage.prove("photos:5")
    others = tuple(e for e in bundle.entries if decode_event(e.entry)["kind"] != "resume")
    yield caught(stage.check(replace(bundle, entries=others)), "entries")


if __name__ == "__main__":
    main(tell)
