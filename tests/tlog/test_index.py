"""The sorted tree: built step by step as from scratch, and proofs of presence and absence with their lies."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtrac.errors import ProofError
from fgtrac.tlog import index, merkle
from fgtrac.tlog.index import Absence, Columns, LeafProof, Presence, Tree
from fgtrac.tlog.merkle import MemoryNodes

Leaves = Mapping[tuple[int, bytes], bytes]


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def columns_of(leaves: Leaves) -> Columns:
    ordered = sorted(leaves)
    keys = np.frombuffer(b"".join(bytes((t,)) + k for t, k in ordered), np.uint8).reshape(-1, 33)
    sizes = [len(leaves[k]) for k in ordered]
    values = np.frombuffer(b"".join(leaves[k] for k in ordered), np.uint8)
    return Columns(keys, np.cumsum([0, *sizes]).astype(np.uint64), values)


def reference_root(leaves: Leaves) -> bytes:
    """From the definition: RFC 6962 over type || key || SHA-256(value), in ascending order."""
    data = [bytes((t,)) + k + hashlib.sha256(leaves[t, k]).digest() for t, k in sorted(leaves)]
    return merkle.root(len(data), MemoryNodes(merkle.hash_leaves(data)))


def small(count: int) -> dict[tuple[int, bytes], bytes]:
    return {(1 + i % 2, key(i)): b"value %d" % i for i in range(count)}


# Keys that share long beginnings: the merge of two trees may not rest on the first bytes alone.
KEYS = st.tuples(
    st.sampled_from([1, 2]),
    st.one_of(
        st.integers(0, 30).map(key),
        st.binary(min_size=1, max_size=1).map(lambda b: bytes(31) + b),
        st.binary(min_size=1, max_size=1).map(lambda b: bytes(7) + b + bytes(24)),
    ),
)
GROWTHS = st.lists(st.dictionaries(KEYS, st.binary(min_size=1, max_size=5), max_size=25), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(GROWTHS)
def test_a_tree_that_grows_equals_one_built_from_scratch(growths: list[dict[tuple[int, bytes], bytes]]) -> None:
    leaves: dict[tuple[int, bytes], bytes] = {}
    tree: Tree | None = None
    for growth in growths:
        for name, more in growth.items():
            leaves[name] = leaves.get(name, b"") + more
        tree = index.build(columns_of(leaves), tree)
        scratch = index.build(columns_of(leaves))
        assert tree.root == scratch.root == reference_root(leaves)
        assert np.array_equal(tree.digests, scratch.digests)
        assert np.array_equal(tree.nodes, scratch.nodes)


def test_what_has_not_changed_is_not_hashed_again() -> None:
    leaves = small(100)
    before = index.build(columns_of(leaves))
    poisoned = Tree(before.columns, before.digests, before.nodes.copy(), before.root)
    poisoned.nodes[-1] ^= 1  # the largest subtree: were it hashed anew, the root would be right
    assert index.build(columns_of(leaves), poisoned).root != before.root


def test_a_tree_of_many_pieces_has_the_same_root() -> None:
    leaves = small(300)
    whole = index.build(columns_of(leaves))
    piece, index.PIECE = index.PIECE, 7
    try:
        assert index.build(columns_of(leaves)).root == whole.root
    finally:
        index.PIECE = piece


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 33])
def test_every_leaf_is_proved_and_every_gap_too(size: int) -> None:
    leaves = small(size)
    tree = index.build(columns_of(leaves))
    for (kind, name), value in leaves.items():
        at = index.find(tree, kind, name)
        assert at is not None
        presence = index.prove_present(tree, at)
        assert presence.value == value
        index.check_present(tree.root, size, kind, name, presence)
        with pytest.raises(ValueError, match="is in the tree"):
            index.prove_absent(tree, kind, name)
    places = set()
    probes = [(t, k) for t in (0, 1, 2, 3) for k in (bytes(32), b"\xff" * 32, *map(key, range(1000, 1100)))]
    for kind, name in probes:
        assert index.find(tree, kind, name) is None
        absence = index.prove_absent(tree, kind, name)
        index.check_absent(tree.root, size, kind, name, absence)
        places.add(index.lower_bound(tree, kind, name))
    assert {0, size} <= places


def test_in_an_empty_tree_everything_is_absent_and_no_other_root_says_so() -> None:
    tree = index.build(columns_of({}))
    absence = index.prove_absent(tree, 1, key(0))
    assert absence == Absence(None, None)
    index.check_absent(tree.root, 0, 1, key(0), absence)
    with pytest.raises(ProofError, match="empty index"):
        index.check_absent(key(1), 0, 1, key(0), absence)


class TestLies:
    """A tree of eleven samples and the key that lies between its leaves 4 and 5."""

    leaves = {(1, bytes((10 * i,)) * 32): b"%d" % i for i in range(11)}  # noqa: RUF012
    tree = index.build(columns_of(leaves))
    size, root = 11, tree.root
    wanted = bytes((45,)) * 32

    def leaf(self, at: int) -> LeafProof:
        return index.prove_leaf(self.tree, at)

    def refused(self, absence: Absence, wanted: bytes | None = None, size: int = 11) -> str:
        with pytest.raises(ProofError) as caught:
            index.check_absent(self.root, size, 1, self.wanted if wanted is None else wanted, absence)
        return str(caught.value)

    def test_the_honest_proof_is_accepted(self) -> None:
        index.check_absent(self.root, self.size, 1, self.wanted, Absence(self.leaf(4), self.leaf(5)))

    def test_neighbours_that_are_not_adjacent_are_refused(self) -> None:
        for left, right in ((3, 5), (4, 6), (0, 10)):
            assert "not neighbours" in self.refused(Absence(self.leaf(left), self.leaf(right)))

    def test_neighbours_on_the_wrong_side_are_refused(self) -> None:
        assert "does not come before" in self.refused(Absence(self.leaf(5), self.leaf(6)))
        assert "does not come after" in self.refused(Absence(self.leaf(3), self.leaf(4)))
        assert "does not come" in self.refused(Absence(self.leaf(5), self.leaf(4)))

    def test_the_key_itself_is_no_neighbour(self) -> None:
        present = bytes((40,)) * 32
        assert "does not come before" in self.refused(Absence(self.leaf(4), self.leaf(5)), present)
        assert "does not come after" in self.refused(Absence(self.leaf(3), self.leaf(4)), present)

    def test_a_missing_neighbour_is_only_right_at_that_end(self) -> None:
        assert "not neighbours" in self.refused(Absence(self.leaf(4), None))
        assert "not neighbours" in self.refused(Absence(None, self.leaf(5)))
        assert "not neighbours" in self.refused(Absence(None, None))
        index.check_absent(self.root, self.size, 1, b"\xff" * 32, Absence(self.leaf(10), None))
        index.check_absent(self.root, self.size, 0, self.wanted, Absence(None, self.leaf(0)))
        assert "not neighbours" in self.refused(Absence(self.leaf(9), None), b"\xff" * 32)

    def test_a_tree_said_to_be_smaller_or_empty_is_refused(self) -> None:
        self.refused(Absence(self.leaf(4), None), size=5)
        self.refused(Absence(None, None), size=0)
        self.refused(Absence(self.leaf(4), self.leaf(5)), size=0)

    def test_a_moved_or_altered_leaf_is_refused(self) -> None:
        good = self.leaf(4)
        for lie in (
            dataclasses.replace(good, index=5),
            dataclasses.replace(good, type=0),
            dataclasses.replace(good, type=257),
            dataclasses.replace(good, key=bytes((44,)) * 32),
            dataclasses.replace(good, key=good.key[:-1]),
            dataclasses.replace(good, key=good.key + good.digest[:1], digest=good.digest[1:]),
            dataclasses.replace(good, digest=bytes(32)),
            dataclasses.replace(good, path=good.path[:-1]),
            dataclasses.replace(good, path=good.path[::-1]),
        ):
            self.refused(Absence(lie, self.leaf(5)))

    def test_a_key_of_another_length_is_never_absent(self) -> None:
        for wrong in (self.wanted[:31], self.wanted + b"\0", b""):
            assert "32 bytes" in self.refused(Absence(self.leaf(4), self.leaf(5)), wrong)

    def test_another_value_or_another_keys_leaf_is_refused(self) -> None:
        honest = index.prove_present(self.tree, 4)
        name = bytes((40,)) * 32
        index.check_present(self.root, self.size, 1, name, honest)
        for lie in (
            Presence(honest.leaf, b"5"),
            Presence(honest.leaf, b""),
            index.prove_present(self.tree, 5),
            Presence(dataclasses.replace(honest.leaf, digest=hashlib.sha256(b"5").digest()), b"5"),
        ):
            with pytest.raises(ProofError):
                index.check_present(self.root, self.size, 1, name, lie)
        with pytest.raises(ProofError, match="of type 2"):
            index.check_present(self.root, self.size, 2, name, honest)
