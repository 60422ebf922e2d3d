"""Duplicate the last leaf: the signer shows one entry more under the same root, by repeating the last one.

Where a tree pairs a lonely leaf with itself, both sizes have one root (CVE-2012-2459). RFC 6962 carries it up alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.demo.forge import all_entries, head_of, put, signed_note
from fgtrac.tlog.merkle import hash_leaves
from fgtrac.tlog.note import TreeHead
from fgtrac.tlog.tiles import ENTRIES, Tile, encode_bundle
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    head, entries = head_of(trace), all_entries(trace)
    twice = [*entries, entries[-1]]
    put(trace, Tile(ENTRIES, 0, len(twice)).path, encode_bundle(twice))
    put(trace, Tile(0, 0, len(twice)).path, b"".join(hash_leaves(twice)))
    put(trace, "checkpoint", signed_note(TreeHead(head.origin, len(twice), head.root), stage.key))
    yield caught(stage.verify(trace), "tiles")
    bundle = stage.prove("photos:5")
    proof = replace(bundle.proof, index=len(entries), note=trace.read("checkpoint"))
    yield caught(stage.check(replace(bundle, proof=proof)), "seal")


if __name__ == "__main__":
    main(tell)
