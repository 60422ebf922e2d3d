"""Show an altered entry: the model state that a bundle names has another digest.

Every entry that is shown has its path to the signed root.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.events.schema import decode_event, encode_event
from lying import Act, Stage, caught, main, reworded


def tell(stage: Stage) -> Iterator[Act]:
    bundle, lie = stage.prove("photos:5"), []
    for shown in bundle.entries:
        event = decode_event(shown.entry)
        if event["kind"] == "checkpoint":
            shown = replace(shown, entry=encode_event(event | {"digest": bytes(32)}))
        lie.append(shown)
    yield caught(stage.check(reworded(replace(bundle, entries=tuple(lie)))), "entries")


if __name__ == "__main__":
    main(tell)
