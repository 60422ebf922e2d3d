"""Who a sample is: ids from keys under three schemes, content digests, commitments, block ids.

public   id = SHA-256(preimage)
keyed    k  = HMAC-SHA256(K, "open" || preimage), id = HMAC-SHA256(k, preimage), one K for the run
subject  the same with a random K_s for each subject
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any

from fgtrac.events.codec import encode

SCHEMES = ("public", "keyed", "subject")
SECRET_BYTES = 32


def preimage(dataset: str, key: Any) -> bytes:
    """What a sample's id is computed from: CBOR ["fgtrac id v1", data set name, key].

    The key is a row number, text, bytes or a tuple of these. TypeError for anything else.
    """
    check_key(key)
    return encode(["fgtrac id v1", dataset, key])


def content_preimage(source_digest: bytes) -> bytes:
    """What a content digest is computed from: CBOR ["fgtrac content v1", SHA-256 of the source bytes]."""
    return encode(["fgtrac content v1", source_digest])


def check_key(key: Any) -> None:
    """TypeError unless `key` is an int of 0 or more, text, bytes, or a tuple of these."""
    if isinstance(key, tuple):
        for part in key:
            check_key(part)
    elif isinstance(key, bool) or not isinstance(key, int | str | bytes) or (isinstance(key, int) and key < 0):
        raise TypeError(
            f"{key!r} of type {type(key).__name__} is no key; use an int >= 0, text, bytes or a tuple of these"
        )


def open_key(secret: bytes, preimage: bytes) -> bytes:
    """k_i, which opens one id and no other: HMAC-SHA256(K, "open" || preimage)."""
    return hmac.digest(secret, b"open" + preimage, "sha256")


def id_from_opening(opening: bytes, preimage: bytes) -> bytes:
    """The id that an opening k_i gives: HMAC-SHA256(k_i, preimage)."""
    return hmac.digest(opening, preimage, "sha256")


def keyed_id(secret: bytes, preimage: bytes) -> bytes:
    """The id under the secret K (or K_s)."""
    return id_from_opening(open_key(secret, preimage), preimage)


def public_id(preimage: bytes) -> bytes:
    """The id that anyone can compute: SHA-256(preimage)."""
    return hashlib.sha256(preimage).digest()


def key_commitment(secret: bytes) -> bytes:
    """What the `run` entry says of K: SHA-256("fgtrac key v1\\n" || K)."""
    return hashlib.sha256(b"fgtrac key v1\n" + secret).digest()


def subject_commitment(secret: bytes) -> bytes:
    """A subject's pseudonym: SHA-256("fgtrac subject v1\\n" || K_s)."""
    return hashlib.sha256(b"fgtrac subject v1\n" + secret).digest()


def block_id(sorted_ids: bytes | memoryview) -> bytes:
    """The 16-byte name of a block: the beginning of SHA-256 over its ids in ascending order."""
    return hashlib.sha256(sorted_ids).digest()[:16]


def make_ids(scheme: str, secret: bytes, preimages: Iterable[bytes]) -> bytes:
    """The ids of many preimages, one after another (32 bytes each). ValueError for an unknown scheme."""
    if scheme == "public":
        return b"".join([hashlib.sha256(p).digest() for p in preimages])
    if scheme not in SCHEMES:
        raise ValueError(f"id scheme {scheme!r} is none of {', '.join(SCHEMES)}")
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret has {len(secret)} bytes; ids are keyed by {SECRET_BYTES}")
    opening = _keyed(secret)
    return b"".join([hmac.digest(opening(b"open" + p), p, "sha256") for p in preimages])


def _keyed(secret: bytes) -> Callable[[bytes], bytes]:
    """HMAC-SHA256 under one key (RFC 2104), from two prepared hash states: half the price of a fresh HMAC."""
    block = secret.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block))
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in block))

    def digest(message: bytes) -> bytes:
        first, second = inner.copy(), outer.copy()
        first.update(message)
        second.update(first.digest())
        return second.digest()

    return digest
