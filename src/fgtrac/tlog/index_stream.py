"""The second tree's upper nodes from leaf hashes that come piece by piece, in the order of the leaves."""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.tlog.merkle import EMPTY_ROOT, HASH_BYTES, node_hash, parents


class NodeStream:
    """The column `nodes` of a tree of so many leaves: what it holds beside the result is one hash a level."""

    def __init__(self, leaves: int) -> None:
        sizes = [leaves >> level for level in range(leaves.bit_length())]
        self._leaves = leaves
        self._next = [sum(sizes[:level]) for level in range(len(sizes))]
        self._single = [b""] * len(sizes)  # of each level the last node, while it has no sibling
        self.nodes = sum(sizes)

    def add(self, leaf_hashes: bytes) -> Iterator[tuple[int, bytes]]:
        """Take the next leaves' hashes, laid end to end: rows of the column as (number of the first, hashes)."""
        level, fresh = 0, leaf_hashes
        while fresh:
            yield self._next[level], fresh
            self._next[level] += len(fresh) // HASH_BYTES
            row = self._single[level] + fresh
            cut = len(row) // (2 * HASH_BYTES) * 2 * HASH_BYTES
            self._single[level] = row[cut:]
            fresh = parents(row[:cut])
            level += 1

    def root(self) -> bytes:
        """The root, once all leaves are there. ValueError before."""
        if self._next and self._next[0] != self._leaves:
            raise ValueError(f"{self._next[0]} of {self._leaves} leaves are there; the root is that of all")
        reached = b""
        for peak in filter(None, self._single):
            reached = node_hash(peak, reached) if reached else peak
        return reached or EMPTY_ROOT
