"""Pass a node off as a leaf: two neighbouring hashes are shown as if they were an entry, one level further up.

Leaves are hashed behind a 0x00 and nodes behind a 0x01 (RFC 6962), so no node is the hash of an entry; and the path is
shorter than the size asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.demo.forge import tile_at
from fgtrac.tlog.tiles import read_tile
from fgtrac.verify.bundle import Shown
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    bundle = stage.prove("photos:5", "--entries")
    hashes = read_tile(stage.trace, tile_at(stage.trace, 0, 0))
    shown = next(entry for entry in bundle.entries if entry.number % 2 == 0)
    pair = hashes[32 * shown.number : 32 * shown.number + 64]
    for number, path in ((shown.number // 2, shown.path[1:]), (shown.number, shown.path[1:])):
        node = Shown(number, pair, path)
        entries = sorted({e.number: e for e in (*bundle.entries, node)}.values(), key=lambda entry: entry.number)
        yield caught(stage.check(replace(bundle, entries=tuple(entries))), "entries")


if __name__ == "__main__":
    main(tell)
