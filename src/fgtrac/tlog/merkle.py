"""Merkle trees after RFC 6962 section 2.1: hashes, inclusion and consistency proofs, over any store of nodes.

Storage is handed in as `Nodes`, which knows the hash of every complete subtree; nothing here reads a file.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from fgtrac.errors import ProofError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
_sha256 = hashlib.sha256
PAIRS = 1 << 17  # hashed at a time


class Nodes(Protocol):
    """A tree's complete subtrees: the hash over leaves index << level up to (index + 1) << level."""

    def node(self, level: int, index: int) -> bytes: ...


def leaf_hash(data: bytes | memoryview) -> bytes:
    """SHA-256(0x00 || data)."""
    return _sha256(b"\0" + bytes(data)).digest()


def hash_leaves(leaves: Iterable[bytes]) -> list[bytes]:
    """The leaf hash of each of many leaves."""
    return [_sha256(b"\0" + leaf).digest() for leaf in leaves]


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return _sha256(b"\1" + left + right).digest()


def parents(row: bytes | memoryview) -> bytes:
    """The next level above a row of hashes laid end to end; an odd last one has no parent yet."""
    data = bytes(row)
    if len(data) < 1 << 16:
        return b"".join([_sha256(b"\1" + data[i : i + 64]).digest() for i in range(0, len(data) - 63, 64)])
    pairs, out = np.frombuffer(data, dtype=np.uint8)[: len(data) // 64 * 64].reshape(-1, 64), []
    for at in range(0, len(pairs), PAIRS):
        prefixed = np.ones((len(pairs[at : at + PAIRS]), 65), dtype=np.uint8)  # the preimages in one buffer
        prefixed[:, 1:] = pairs[at : at + PAIRS]
        raw = prefixed.tobytes()
        out.append(b"".join([_sha256(pair).digest() for (pair,) in struct.iter_unpack("65s", raw)]))
    return b"".join(out)


class MemoryNodes:
    """Every level of a tree in memory, from its leaf hashes, one by one or laid end to end."""

    def __init__(self, leaf_hashes: bytes | Sequence[bytes]) -> None:
        self.levels = [leaf_hashes if isinstance(leaf_hashes, bytes) else b"".join(leaf_hashes)]
        while len(self.levels[-1]) >= 2 * HASH_BYTES:
            self.levels.append(parents(self.levels[-1]))
        self.size = len(self.levels[0]) // HASH_BYTES

    def node(self, level: int, index: int) -> bytes:
        """The hash of one complete subtree."""
        return self.levels[level][index * HASH_BYTES : (index + 1) * HASH_BYTES]


def root(size: int, nodes: Nodes) -> bytes:
    """The root of the tree of the first `size` leaves."""
    return subtree(0, size, nodes) if size else EMPTY_ROOT


def subtree(start: int, stop: int, nodes: Nodes) -> bytes:
    """MTH(D[start:stop]), where `start` is a multiple of the largest power of two in the range."""
    size = stop - start
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return nodes.node(level, start >> level)
    cut = start + split_point(size)
    return node_hash(subtree(start, cut, nodes), subtree(cut, stop, nodes))


def split_point(size: int) -> int:
    """The largest power of two below `size` (RFC 6962's k)."""
    return 1 << ((size - 1).bit_length() - 1)


def prove_inclusion(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """The audit path of leaf `index` in a tree of `size` leaves, leaf to root (RFC 6962 section 2.1.1).

    ValueError where the leaf is not in the tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}; prove against a later head")
    path = []
    start, stop = 0, size
    while stop - start > 1:
        cut = start + split_point(stop - start)
        if index < cut:
            path.append(subtree(cut, stop, nodes))
            stop = cut
        else:
            path.append(subtree(start, cut, nodes))
            start = cut
    return path[::-1]


def check_inclusion(root: bytes, index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> None:
    """ProofError unless `path` shows the leaf hash `leaf` at `index` of the tree of `size` leaves with that root."""
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} cannot be in a tree of {size} leaves")
    if any(len(h) != HASH_BYTES for h in (root, leaf, *path)):
        raise ProofError(f"a proof's hashes have {HASH_BYTES} bytes each")
    expected = path_length(index, size)
    if len(path) != expected:
        raise ProofError(f"the path of leaf {index} in a tree of {size} has {expected} hashes, not {len(path)}")
    reached, last, at = leaf, size - 1, index
    for sibling in path:
        while last and at == last and at & 1 == 0:  # a node without a sibling is carried up as it is
            at, last = at >> 1, last >> 1
        reached = node_hash(sibling, reached) if at & 1 else node_hash(reached, sibling)
        at, last = at >> 1, last >> 1
    if reached != root:
        raise ProofError(f"leaf {index} of {size} leads to the root {reached.hex()}, not to {root.hex()}")


def path_length(index: int, size: int) -> int:
    """How many hashes the audit path of leaf `index` has in a tree of `size` leaves."""
    inner = (index ^ (size - 1)).bit_length()
    return inner + (index >> inner).bit_count()


def prove_consistency(first: int, second: int, nodes: Nodes) -> list[bytes]:
    """The proof that the tree of `first` leaves is a prefix of that of `second` (RFC 6962 section 2.1.2).

    ValueError unless 1 <= first <= second.
    """
    if not 1 <= first <= second:
        raise ValueError(
            f"no consistency proof from {first} to {second} leaves; the first is at least 1 and not larger"
        )
    path: list[bytes] = []
    start, stop, whole = 0, second, True
    while first != stop:
        cut = start + split_point(stop - start)
        if first <= cut:
            path.append(subtree(cut, stop, nodes))
            stop = cut
        else:
            path.append(subtree(start, cut, nodes))
            start, whole = cut, False
    if not whole:
        path.append(subtree(start, stop, nodes))
    return path[::-1]


def check_consistency(first: int, first_root: bytes, second: int, second_root: bytes, path: Sequence[bytes]) -> None:
    """ProofError unless `path` shows that the second tree extends the first (RFC 9162 section 2.1.4.2)."""
    if not 1 <= first <= second:
        raise ProofError(f"a tree of {second} leaves cannot extend one of {first}")
    if any(len(h) != HASH_BYTES for h in (first_root, second_root, *path)):
        raise ProofError(f"a proof's hashes have {HASH_BYTES} bytes each")
    if first == second:
        if path:
            raise ProofError(f"the proof from {first} to {second} leaves has {len(path)} hashes and needs none")
        if first_root != second_root:
            raise ProofError(f"two roots for {first} leaves: {first_root.hex()} and {second_root.hex()}")
        return
    left = list(path)
    if first & (first - 1) == 0:
        left.insert(0, first_root)
    if not left:
        raise ProofError(f"the proof from {first} to {second} leaves is empty")
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = left[0]
    for sibling in left[1:]:
        if last == 0:
            raise ProofError(f"the proof from {first} to {second} leaves has {len(path)} hashes, more than it needs")
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while at & 1 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise ProofError(f"the proof from {first} to {second} leaves has {len(path)} hashes, fewer than it needs")
    for reached, claimed, size in ((old, first_root, first), (new, second_root, second)):
        if reached != claimed:
            raise ProofError(f"the proof leads to the root {reached.hex()} of {size} leaves, not to {claimed.hex()}")
