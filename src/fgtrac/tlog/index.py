"""The second tree: a Merkle tree sorted by key, whose leaves commit to values, with proofs of presence and absence.

    leaf data = type (u8) || key (32 bytes) || SHA-256(value)

It knows bytes only: what a value says is the events' business.
"""

from __future__ import annotations

import bisect
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.tlog import merkle
from fgtrac.tlog.merkle import EMPTY_ROOT, HASH_BYTES, check_inclusion, prove_inclusion

SAMPLE, CONTENT = 1, 2
KEY_BYTES = 33
LEAF_BYTES = 65
Bytes2D = NDArray[np.uint8]
_sha256 = hashlib.sha256
PIECE = 1 << 17  # leaves hashed at a time


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Leaves without hashes: keys (n, 33) uint8, type first, strictly ascending; value i is
    values[offsets[i]:offsets[i + 1]]; offsets (n + 1,) uint64, values uint8."""

    keys: Bytes2D
    offsets: NDArray[np.uint64]
    values: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """Columns with their hashes: digests (n, 32) of the values, nodes (m, 32): every complete subtree, level by
    level (level l has n >> l), and the root. Works as well on memory-mapped arrays."""

    columns: Columns
    digests: Bytes2D
    nodes: Bytes2D
    root: bytes

    def __len__(self) -> int:
        return len(self.columns.keys)

    def node(self, level: int, index: int) -> bytes:
        """The hash of one complete subtree."""
        at = index + sum(len(self) >> below for below in range(level))
        return bytes(self.nodes[at])


@dataclass(frozen=True, slots=True)
class LeafProof:
    """One leaf and its audit path."""

    index: int
    type: int
    key: bytes
    digest: bytes
    path: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        """The leaf's 65 bytes."""
        return bytes((self.type,)) + self.key + self.digest


@dataclass(frozen=True, slots=True)
class Presence:
    """A leaf and the value that its digest commits to."""

    leaf: LeafProof
    value: bytes


@dataclass(frozen=True, slots=True)
class Absence:
    """The neighbours of a key that is not there; at an end of the tree there is one, in an empty tree none."""

    left: LeafProof | None
    right: LeafProof | None


def build(columns: Columns, previous: Tree | None = None) -> Tree:
    """Hash the columns into a tree. What `previous` has hashed already and is still the same is taken over.

    Values only ever grow: a value as long as in `previous` must be the same value.
    """
    n = len(columns)
    if n == 0:
        return Tree(columns, np.empty((0, 32), np.uint8), np.empty((0, 32), np.uint8), EMPTY_ROOT)
    reuse = _Reuse(columns, previous) if previous is not None and len(previous) else None
    digests, below = _hashed(columns, reuse)
    sizes = [n >> level for level in range(n.bit_length())]
    nodes, filled = np.empty((sum(sizes), HASH_BYTES), dtype=np.uint8), 0
    for level, size in enumerate(sizes):
        if level:
            below = merkle.parents(below) if reuse is None else reuse.parents(level, below)
        nodes[filled : filled + size] = _rows(below)
        filled += size
    return Tree(columns, digests, nodes, merkle.root(n, Tree(columns, digests, nodes, b"")))


def hash_columns(columns: Columns, previous: Tree | None = None) -> tuple[Bytes2D, bytes]:
    """The digests (n, 32) of the values, and the leaf hashes laid end to end; of a part of a tree too, where `previous`
    is the same part of an older one (of its nodes, only those of its leaves are read)."""
    return _hashed(columns, _Reuse(columns, previous) if previous is not None and len(previous) else None)


def _hashed(columns: Columns, reuse: _Reuse | None) -> tuple[Bytes2D, bytes]:
    digests = _rows(value_digests(columns) if reuse is None else reuse.digests())
    return digests, _leaf_hashes(columns.keys, digests) if reuse is None else reuse.leaf_hashes(digests)


def _rows(data: bytes) -> Bytes2D:
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, HASH_BYTES)


def value_digests(columns: Columns, chosen: NDArray[np.intp] | None = None) -> bytes:
    """SHA-256 of the values of the chosen leaves (default: all), piece by piece, so that no copy of them all stays."""
    out = []
    starts_all, stops_all = columns.offsets[:-1], columns.offsets[1:]
    count = len(columns) if chosen is None else len(chosen)
    for at in range(0, count, PIECE):
        part = slice(at, at + PIECE) if chosen is None else chosen[at : at + PIECE]
        starts, stops = starts_all[part].astype(np.int64), stops_all[part].astype(np.int64)
        base = int(starts[0])
        raw = columns.values[base : int(stops[-1])].tobytes()
        pairs = zip((starts - base).tolist(), (stops - base).tolist(), strict=True)
        out.append(b"".join([_sha256(raw[start:stop]).digest() for start, stop in pairs]))
    return b"".join(out)


def _leaf_hashes(keys: Bytes2D, digests: Bytes2D) -> bytes:
    """RFC 6962 leaf hashes of the leaf data, from buffers that hold every preimage."""
    width = 1 + LEAF_BYTES
    out = []
    for at in range(0, len(keys), PIECE):
        part = slice(at, at + PIECE)
        data = np.zeros((len(keys[part]), width), dtype=np.uint8)
        data[:, 1 : 1 + KEY_BYTES] = keys[part]
        data[:, 1 + KEY_BYTES :] = digests[part]
        raw = data.tobytes()
        out.append(b"".join([_sha256(leaf).digest() for (leaf,) in struct.iter_unpack(f"{width}s", raw)]))
    return b"".join(out)


class _Reuse:
    """What of an older tree stays true: leaves with the same key and value, subtrees over such leaves in place."""

    def __init__(self, columns: Columns, previous: Tree) -> None:
        self._columns, self._previous = columns, previous
        old = previous.columns
        self._old_place = places_in(old.keys, columns.keys)  # of each new leaf in the old tree, or -1
        there = np.flatnonzero(self._old_place >= 0)
        sizes, old_sizes = np.diff(columns.offsets), np.diff(old.offsets)
        same_size = sizes[there] == old_sizes[self._old_place[there]]
        self._same = np.zeros(len(columns), dtype=bool)
        self._same[there[same_size]] = True
        self._clean = self._same & (self._old_place == np.arange(len(columns)))

    def digests(self) -> bytes:
        out = np.empty((len(self._columns), HASH_BYTES), dtype=np.uint8)
        out[self._same] = self._previous.digests[self._old_place[self._same]]
        out[~self._same] = _rows(value_digests(self._columns, np.flatnonzero(~self._same)))
        return out.tobytes()

    def leaf_hashes(self, digests: Bytes2D) -> bytes:
        out = np.empty((len(self._columns), HASH_BYTES), dtype=np.uint8)
        out[self._same] = self._previous.nodes[self._old_place[self._same]]
        fresh = ~self._same
        out[fresh] = _rows(_leaf_hashes(self._columns.keys[fresh], digests[fresh]))
        return out.tobytes()

    def parents(self, level: int, below: bytes) -> bytes:
        """One level up: nodes whose children are both clean are copied, the others hashed."""
        count = len(below) // (2 * HASH_BYTES)
        old_count = len(self._previous) >> level
        clean = self._clean[: 2 * count].reshape(-1, 2).all(axis=1)
        clean[old_count:] = False
        self._clean = clean
        out = np.empty((count, HASH_BYTES), dtype=np.uint8)
        base = sum(len(self._previous) >> lower for lower in range(level))
        kept = np.flatnonzero(clean)
        out[kept] = self._previous.nodes[base + kept]
        pairs = np.frombuffer(below, dtype=np.uint8)[: count * 64].reshape(-1, 64)
        out[~clean] = _rows(merkle.parents(pairs[~clean].tobytes()))
        return out.tobytes()


def places_in(old: Bytes2D, new: Bytes2D) -> NDArray[np.intp]:
    """For each row of `new` its place in `old` (both ascending), or -1: one merge of the two."""
    joined = np.concatenate([old, new])
    prefix = np.ascontiguousarray(joined[:, :9])  # type and eight bytes decide nearly always
    words = prefix[:, 1:].copy().view(">u8")[:, 0].astype(np.uint64)
    order = np.lexsort((words, prefix[:, 0]))
    ordered = joined[order]
    tied = np.flatnonzero((ordered[1:, :9] == ordered[:-1, :9]).all(axis=1))
    equal = tied[(ordered[tied + 1] == ordered[tied]).all(axis=1)]
    places = np.full(len(new), -1, dtype=np.intp)
    places[order[equal + 1] - len(old)] = order[equal]
    for start, stop in _runs(tied):  # three or more with one prefix: keys that share it, settled one by one
        if stop - start > 1:
            members = order[start : stop + 1]
            known = {old[m].tobytes(): int(m) for m in members if m < len(old)}
            for m in members[members >= len(old)]:
                places[m - len(old)] = known.get(joined[m].tobytes(), -1)
    return places


def _runs(places: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Maximal runs of consecutive places, as (first, last + 1)."""
    if len(places) == 0:
        return
    breaks = np.flatnonzero(np.diff(places) > 1)
    starts = np.concatenate([[0], breaks + 1])
    stops = np.concatenate([breaks, [len(places) - 1]])
    for start, stop in zip(places[starts].tolist(), places[stops].tolist(), strict=True):
        yield start, stop + 1


# -- proofs -------------------------------------------------------------------------------------------------------


def lower_bound(tree: Tree, type: int, key: bytes) -> int:
    """How many leaves come before (type, key)."""
    wanted = bytes((type,)) + key
    keys = tree.columns.keys
    return bisect.bisect_left(range(len(tree)), wanted, key=lambda i: keys[i].tobytes())


def find(tree: Tree, type: int, key: bytes) -> int | None:
    """The leaf of a key, or None. What it finds is to be proved before it is believed."""
    at = lower_bound(tree, type, key)
    if at < len(tree) and tree.columns.keys[at].tobytes() == bytes((type,)) + key:
        return at
    return None


def value_at(tree: Tree, index: int) -> bytes:
    """The value of leaf `index`."""
    start, stop = int(tree.columns.offsets[index]), int(tree.columns.offsets[index + 1])
    return tree.columns.values[start:stop].tobytes()


def prove_leaf(tree: Tree, index: int) -> LeafProof:
    """Leaf `index` with its audit path; hashes nothing that the tree holds."""
    key = tree.columns.keys[index].tobytes()
    path = tuple(prove_inclusion(index, len(tree), tree))
    return LeafProof(index, key[0], key[1:], bytes(tree.digests[index]), path)


def prove_present(tree: Tree, index: int) -> Presence:
    """Leaf `index` with its value."""
    return Presence(prove_leaf(tree, index), value_at(tree, index))


def prove_absent(tree: Tree, type: int, key: bytes) -> Absence:
    """The neighbours of a key that is not in the tree. ValueError where it is."""
    at = lower_bound(tree, type, key)
    if find(tree, type, key) is not None:
        raise ValueError(f"key {key.hex()} of type {type} is in the tree at leaf {at}; prove its presence")
    left = prove_leaf(tree, at - 1) if at > 0 else None
    right = prove_leaf(tree, at) if at < len(tree) else None
    return Absence(left, right)


def check_leaf(root: bytes, size: int, leaf: LeafProof) -> None:
    """ProofError unless the leaf is in the tree of `size` leaves with that root."""
    if len(leaf.key) != 32 or len(leaf.digest) != 32 or not 0 <= leaf.type < 256:
        raise ProofError(
            f"an index leaf has a type, a 32-byte key and a 32-byte digest, not type {leaf.type}, "
            f"{len(leaf.key)} and {len(leaf.digest)} bytes"
        )
    check_inclusion(root, leaf.index, size, merkle.leaf_hash(leaf.data), leaf.path)


def check_present(root: bytes, size: int, type: int, key: bytes, presence: Presence) -> None:
    """ProofError unless the value stands under the key."""
    leaf = presence.leaf
    if (leaf.type, leaf.key) != (type, key):
        raise ProofError(f"the proof is for key {leaf.key.hex()} of type {leaf.type}, not {key.hex()} of type {type}")
    if _sha256(presence.value).digest() != leaf.digest:
        raise ProofError(
            f"the value hashes to {_sha256(presence.value).hexdigest()}, the leaf says {leaf.digest.hex()}"
        )
    check_leaf(root, size, leaf)


def check_absent(root: bytes, size: int, type: int, key: bytes, absence: Absence) -> None:
    """ProofError unless the neighbours show that no leaf has the key.

    Rests on the tree's order: the two leaves are adjacent and their keys lie on either side.
    """
    if len(key) != KEY_BYTES - 1 or not 0 <= type < 256:
        raise ProofError(f"an index key has a type and 32 bytes, not type {type} and {len(key)} bytes")
    wanted = bytes((type,)) + key
    left, right = absence.left, absence.right
    if size == 0:
        if left is not None or right is not None or root != EMPTY_ROOT:
            raise ProofError(f"an empty index has no neighbours and the root {EMPTY_ROOT.hex()}, not {root.hex()}")
        return
    for leaf in (left, right):
        if leaf is not None:
            check_leaf(root, size, leaf)
    if left is not None and not left.data[:KEY_BYTES] < wanted:
        raise ProofError(f"the left neighbour {left.key.hex()} does not come before {key.hex()}")
    if right is not None and not wanted < right.data[:KEY_BYTES]:
        raise ProofError(f"the right neighbour {right.key.hex()} does not come after {key.hex()}")
    first = -1 if left is None else left.index
    last = size if right is None else right.index
    if last - first != 1:
        raise ProofError(f"leaves {first} and {last} of {size} are not neighbours: what is between them is not shown")
