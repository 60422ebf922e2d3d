"""Slip in a foreign batch: one holds a sample that the epoch's order has elsewhere.

The order of the epoch was announced, and the replay draws it again.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import find, reseal_with
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    ordinals = event["ordinals"].copy()
    ordinals[0] = ordinals[-1]
    lie = {"ordinals": ordinals}
    reseal_with(trace, number, event | lie, stage.key)
    yield passes(stage.verify(trace), says="that no batch was left out, repeated or exchanged is not shown")
    yield caught(stage.verify(trace, "--replay", "--vault", trace.vault_path), "samplers")


if __name__ == "__main__":
    main(tell)
