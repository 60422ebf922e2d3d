"""Heads to be witnessed, and cosignature lines made with a real Ed25519 key as a witness writes them."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import signed
from fgtrac.anchor.service import ProveFrom, SignedHead
from fgtrac.tlog.cosignature import Cosigner, cosignature_message
from fgtrac.tlog.merkle import MemoryNodes, hash_leaves, prove_consistency
from fgtrac.tlog.note import Signature, parse_note, parse_tree_head, with_signatures

NAME = "witness.example/w1"
KEY = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
TIME = 1_700_000_000


def cosigner(name: str = NAME, key: Ed25519PrivateKey = KEY) -> Cosigner:
    """Who cosigns with a key."""
    return Cosigner(name, key.public_key().public_bytes_raw())


def cosignature(note: bytes, name: str = NAME, key: Ed25519PrivateKey = KEY, time: int = TIME) -> Signature:
    """The line of a cosigner over a note."""
    signed = key.sign(cosignature_message(parse_note(note).text, time))
    return Signature(name, cosigner(name, key).key_id, time.to_bytes(8, "big") + signed)


def cosigned(note: bytes, name: str = NAME, key: Ed25519PrivateKey = KEY, time: int = TIME) -> bytes:
    """The note with the cosigner's line behind its own."""
    return with_signatures(note, [cosignature(note, name, key, time)])


def signed_head(entries: Sequence[bytes], size: int, key: Ed25519PrivateKey = signed.KEY) -> SignedHead:
    """The head of a log of these entries, when it had so many."""
    note = signed.note(entries, size, key)
    return SignedHead(parse_tree_head(parse_note(note).text), note)


def prover(entries: Sequence[bytes], size: int) -> ProveFrom:
    """The consistency proofs to that head."""
    nodes = MemoryNodes(hash_leaves(entries[:size]))
    return lambda old: prove_consistency(old, size, nodes)
