"""Trees and proofs against the recursive definition of RFC 6962, and one lie after another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import pytest

from fgtrac.errors import ProofError
from fgtrac.tlog import merkle
from fgtrac.tlog.merkle import MemoryNodes

LARGEST = 64
LEAVES = [b"leaf %d" % i for i in range(LARGEST)]
HASHES = merkle.hash_leaves(LEAVES)
NODES = MemoryNodes(HASHES)


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, as written."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1, as written."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    """RFC 6962 section 2.1.2, as written."""
    n = len(leaves)
    if m == n:
        return [] if whole else [mth(leaves)]
    k = split(n)
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def turns(m: int, n: int) -> str:
    """On which side the siblings of leaf m stand, leaf to root: two proofs of one shape are told apart by the root."""
    if n == 1:
        return ""
    k = split(n)
    return turns(m, k) + "r" if m < k else turns(m - k, n - k) + "l"


ROOTS = [mth(LEAVES[:n]) for n in range(LARGEST + 1)]


def accepts_inclusion(root: bytes, index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bool:
    try:
        merkle.check_inclusion(root, index, size, leaf, proof)
    except ProofError:
        return False
    return True


def accepts_consistency(first: int, old: bytes, second: int, new: bytes, proof: Sequence[bytes]) -> bool:
    try:
        merkle.check_consistency(first, old, second, new, proof)
    except ProofError:
        return False
    return True


def flipped(data: bytes) -> bytes:
    return bytes((data[0] ^ 1,)) + data[1:]


def false_paths(proof: Sequence[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """What a liar could make of a path without finding a collision."""
    good = list(proof)
    yield "extended in front", [HASHES[0], *good]
    yield "extended behind", [*good, HASHES[0]]
    for i, sibling in enumerate(good):
        yield f"without hash {i}", good[:i] + good[i + 1 :]
        yield f"bit flipped in hash {i}", [*good[:i], flipped(sibling), *good[i + 1 :]]
        yield f"hash {i} cut short", [*good[:i], sibling[:-1], *good[i + 1 :]]
        if i:
            yield f"hashes {i - 1} and {i} swapped", [*good[: i - 1], good[i], good[i - 1], *good[i + 1 :]]


def test_the_roots_are_those_of_the_certificate_transparency_test_vectors() -> None:
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    hashes = merkle.hash_leaves(bytes.fromhex(i) for i in inputs)
    known = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    for size, root in known.items():
        assert merkle.root(size, MemoryNodes(hashes[:size])).hex() == root
    assert merkle.root(0, MemoryNodes([])) == hashlib.sha256(b"").digest() == merkle.EMPTY_ROOT


def test_every_root_to_64_leaves_is_the_recursive_definitions() -> None:
    for size in range(LARGEST + 1):
        assert merkle.root(size, NODES) == ROOTS[size]


def test_every_inclusion_proof_to_64_leaves_is_the_rfcs_and_checks() -> None:
    for size in range(1, LARGEST + 1):
        for index in range(size):
            proof = merkle.prove_inclusion(index, size, NODES)
            assert proof == path(index, LEAVES[:size])
            assert len(proof) == merkle.path_length(index, size)
            merkle.check_inclusion(ROOTS[size], index, size, HASHES[index], proof)


def test_every_consistency_proof_to_64_leaves_is_the_rfcs_and_checks() -> None:
    for second in range(1, LARGEST + 1):
        for first in range(1, second + 1):
            proof = merkle.prove_consistency(first, second, NODES)
            assert proof == subproof(first, LEAVES[:second], True)
            merkle.check_consistency(first, ROOTS[first], second, ROOTS[second], proof)


def test_a_false_path_is_refused_for_every_leaf_to_64_leaves() -> None:
    for size in range(1, LARGEST + 1):
        for index in range(size):
            for lie, proof in false_paths(path(index, LEAVES[:size])):
                assert not accepts_inclusion(ROOTS[size], index, size, HASHES[index], proof), (lie, index, size)


def test_a_wrong_index_leaf_or_root_is_refused_for_every_leaf_to_64_leaves() -> None:
    for size in range(2, LARGEST + 1):
        for index in range(size):
            proof, leaf = path(index, LEAVES[:size]), HASHES[index]
            for other in {-1, 0, index - 1, index + 1, size - 1, size, index ^ (1 << 63)} - {index}:
                assert not accepts_inclusion(ROOTS[size], other, size, leaf, proof), (other, index, size)
            assert not accepts_inclusion(ROOTS[size], index, size, HASHES[index - 1], proof)
            assert not accepts_inclusion(ROOTS[size], index, size, leaf[:-1], proof)
            assert not accepts_inclusion(ROOTS[size - 1], index, size, leaf, proof)


def test_a_wrong_size_is_refused_unless_the_path_has_the_same_turns() -> None:
    """The root and the size stand in one signed head: where both shapes agree, only the head tells them apart."""
    refused = 0
    for size in range(1, LARGEST + 1):
        for index in range(size):
            proof = path(index, LEAVES[:size])
            for other in range(LARGEST + 1):
                same = other > index and turns(index, other) == turns(index, size)
                assert accepts_inclusion(ROOTS[size], index, other, HASHES[index], proof) == same
                refused += not same
    assert refused > 50_000


def test_an_inner_node_does_not_pass_for_a_leaf() -> None:
    left = merkle.node_hash(HASHES[0], HASHES[1])
    data = HASHES[0] + HASHES[1]
    assert merkle.leaf_hash(data) != left
    proof = [merkle.node_hash(HASHES[2], HASHES[3])]
    assert not accepts_inclusion(ROOTS[4], 0, 2, merkle.leaf_hash(data), proof)


def test_a_false_consistency_proof_is_refused_for_every_pair_to_64_leaves() -> None:
    for second in range(1, LARGEST + 1):
        for first in range(1, second + 1):
            for lie, proof in false_paths(subproof(first, LEAVES[:second], True)):
                assert not accepts_consistency(first, ROOTS[first], second, ROOTS[second], proof), (lie, first, second)


def test_a_consistency_proof_with_another_root_or_size_is_refused_for_every_pair_to_64_leaves() -> None:
    for second in range(1, LARGEST + 1):
        for first in range(1, second + 1):
            proof = subproof(first, LEAVES[:second], True)
            old, new = ROOTS[first], ROOTS[second]
            assert not accepts_consistency(first, flipped(old), second, new, proof)
            assert not accepts_consistency(first, old, second, flipped(new), proof)
            assert not accepts_consistency(first, old[:-1], second, new, proof)
            assert not accepts_consistency(0, merkle.EMPTY_ROOT, second, new, proof)
            for other in {first - 1, first + 1, second} - {first}:
                assert not accepts_consistency(other, old, second, new, proof), (other, first, second)
            assert first == second or not accepts_consistency(second, new, first, old, proof)


def test_a_rewritten_history_has_no_consistency_proof() -> None:
    forged = [*LEAVES[:10], b"another leaf", *LEAVES[11:]]
    for first in range(11, LARGEST):
        proof = subproof(first, forged, True)
        assert not accepts_consistency(first, ROOTS[first], LARGEST, mth(forged), proof)
        assert accepts_consistency(first, mth(forged[:first]), LARGEST, mth(forged), proof)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5)])
def test_a_leaf_that_is_not_in_the_tree_cannot_be_proved(index: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"leaf {index} is not in a tree of {size}"):
        merkle.prove_inclusion(index, size, NODES)


@pytest.mark.parametrize(("first", "second"), [(0, 5), (6, 5)])
def test_no_consistency_proof_starts_from_nothing_or_goes_back(first: int, second: int) -> None:
    with pytest.raises(ValueError, match=f"from {first} to {second}"):
        merkle.prove_consistency(first, second, NODES)


def test_a_long_row_has_the_same_parents_as_its_pieces() -> None:
    row = b"".join(hashlib.sha256(bytes((i & 255, i >> 8))).digest() for i in range(3001))
    pieces = [merkle.parents(row[i : i + 640]) for i in range(0, 3000 * 32, 640)]
    assert merkle.parents(row) == b"".join(pieces)
