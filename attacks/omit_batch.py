"""Omit a batch: the signer takes one out of a recorded entry, as if its samples had never been trained on.

Before each epoch the log says how it will be ordered; the replay draws the order again, and a batch is missing.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import find, reseal_with
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    columns = ("count", "epoch", "batch", "step", "status", "attribution")
    lie = {name: event[name][:-1] for name in columns}
    lie["ordinals"] = event["ordinals"][: -int(event["count"][-1])]
    reseal_with(trace, number, event | lie, stage.key)
    yield passes(stage.verify(trace), says="that no batch was left out, repeated or exchanged is not shown")
    yield caught(stage.verify(trace, "--replay", "--vault", trace.vault_path), "samplers")


if __name__ == "__main__":
    main(tell)
