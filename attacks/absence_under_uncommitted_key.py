"""Prove an absence under a key that is not the committed one: under that, of course, the sample has no leaf.

The `run` entry commits to the one key from which every id is derived. Whoever was not given it cannot tell; whoever
was computes the id himself; and a key that the liar hands over has another commitment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.events.identity import keyed_id, preimage
from lying import Act, Stage, caught, main, reworded, undecided


def tell(stage: Stage) -> Iterator[Act]:
    false_key, name = bytes(32), preimage("photos", 5)
    elsewhere = stage.prove("id:" + keyed_id(false_key, name).hex())
    true = stage.prove("photos:99")  # shows what an absence under keyed ids needs: all data sets, and the run entry
    lie = reworded(replace(true, id=elsewhere.id, preimage=name, absence=elsewhere.absence))
    yield undecided(stage.check(lie), "identity")
    yield caught(stage.check(lie, "--id-key", stage.trace.vault_path), "identity")
    yield caught(stage.check(lie, "--id-key", false_key.hex()), "identity")


if __name__ == "__main__":
    main(tell)
