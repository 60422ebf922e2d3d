"""Prove that an id is absent and let it pass for a name's: the public id of a photo that is there, under a keyed one.

The bundle is true, and names an id alone. Asked about the photo, nothing in it shows that this log would give the photo
that id: an absence must be proved by name, which shows what the data set says.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.events.identity import preimage, public_id
from lying import Act, Stage, holds, main, undecided


def tell(stage: Stage) -> Iterator[Act]:
    bundle = stage.prove("id:" + public_id(preimage("photos", 5)).hex())
    yield holds(stage.check(bundle), says="was never registered")
    yield undecided(stage.check(bundle, "--about", "photos:5"), "about")
    yield undecided(stage.check(bundle, "--about", "photos:5", "--id-key", stage.trace.vault_path), "about")


if __name__ == "__main__":
    main(tell)
