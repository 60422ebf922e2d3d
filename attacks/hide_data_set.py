"""Hide a data set: a content is shown as absent, without the data set whose contents were never digested.

With all data sets shown nobody can tell; and the seal counts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.events.schema import decode_event
from lying import Act, Stage, caught, main, reworded, undecided


def tell(stage: Stage) -> Iterator[Act]:
    file = stage.room() / "photo"
    file.write_bytes(b"a photo that nobody registered")
    bundle = stage.prove(f"file:{file}")
    yield undecided(stage.check(bundle, "--id-key", stage.trace.vault_path), "sources")
    known = tuple(e for e in bundle.entries if decode_event(e.entry).get("name") != "spare")
    yield caught(stage.check(reworded(replace(bundle, entries=known)), "--id-key", stage.trace.vault_path), "entries")


if __name__ == "__main__":
    main(tell)
