"""Whether the samples that two traces have in common hold the same bytes, by the content digests of both logs.

Digests are keyed as ids are, so they can be held against each other where both logs give a sample one id. Equal ones
are of equal bytes; others are of other bytes where both logs say that they are of the same kind of source.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.difference import Contents
from fgtrac.api.same_samples import SameSamples, Side
from fgtrac.query.step_samples import Numbers

NAMED = 5  # samples named where some differ
_SHORT = np.dtype([("id", "<u8"), ("digest", "<u8", 2), ("source", "<i4")])  # of a sample: 28 bytes; source 0: none


def compare_contents(same: SameSamples) -> Contents:
    """Of the samples that are registered in both: of how many the digests are equal, other ones, or say nothing.

    192 bits of each id and digest are held: an accident hides a difference once in 2^128.
    """
    sources: dict[str, int] = {}
    a, b = (
        _column(side, blocks, same.total, sources) for side, blocks in zip(same.sides, (same.a, same.b), strict=True)
    )
    both = same.registered(0) & same.registered(1)
    told = both & (a["source"] > 0) & (b["source"] > 0) & (a["id"] == b["id"])
    equal = told & (a["digest"] == b["digest"]).all(axis=1)
    other = told & ~equal & (a["source"] == b["source"])
    named = tuple(same.names(np.flatnonzero(other)[:NAMED]))
    counts = int(equal.sum()), int(other.sum())
    return Contents(*counts, int(both.sum()) - sum(counts), named)


def _column(side: Side, blocks: Mapping[bytes, Numbers], total: int, sources: dict[str, int]) -> NDArray[np.void]:
    """(total,) what a log has of each sample. One of which it has two digests counts as one that has none."""
    found = np.zeros(total + 1, dtype=_SHORT)
    kinds = {event["name"]: event.get("content", "") for _, event in side.log.events("dataset")}
    doubtful = np.zeros(total + 1, dtype=bool)
    for block, numbers in blocks.items():
        of = side.blocks[block]
        if of.contents is None:
            continue
        digests = np.ascontiguousarray(of.contents[:, :16]).view("<u8")
        before = found[numbers]
        doubtful[numbers] |= (before["source"] > 0) & (before["digest"] != digests).any(axis=1)
        before["id"] = np.ascontiguousarray(of.ids[:, :8]).view("<u8").reshape(-1)
        before["digest"] = digests
        before["source"] = sources.setdefault(kinds.get(of.dataset, ""), len(sources) + 1)
        found[numbers] = before
    found["source"][doubtful] = 0
    return found[:-1]
