"""Prove an absence by public id, where ids are keyed: the public id of a registered sample is not in the index.

Which scheme holds is not the liar's to say: the bundle must show every data set, and those say `keyed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.events.identity import preimage, public_id
from lying import Act, Stage, caught, main, reworded, undecided


def tell(stage: Stage) -> Iterator[Act]:
    name = preimage("photos", 5)
    elsewhere, true = stage.prove("id:" + public_id(name).hex()), stage.prove("photos:99")
    lie = reworded(replace(true, id=elsewhere.id, preimage=name, absence=elsewhere.absence))
    yield undecided(stage.check(lie), "identity")
    yield caught(stage.check(lie, "--id-key", stage.trace.vault_path), "identity")
    yield caught(stage.check(replace(lie, entries=())), "entries")


if __name__ == "__main__":
    main(tell)
