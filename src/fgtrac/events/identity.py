"""Who a sample is: ids from keys under three schemes, content digests, commitments, block ids.

public   id = SHA-256(preimage)
keyed    k  = HMAC-SHA256(K, "open" || preimage), id = HMAC-SHA256(k, preimage), one K for the run
subject  the same with a random K_s for each subject
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.codec import MAX_DEPTH, encode, head

SCHEMES = ("public", "keyed", "subject")
SECRET_BYTES = 32


def preimage(dataset: str, key: Any) -> bytes:
    """What a sample's id is computed from: CBOR ["fgtrac id v1", data set name, key].

    The key is a row number, text, bytes or a tuple of these. TypeError and ValueError as `check_key`.
    """
    check_key(key)
    return encode(["fgtrac id v1", dataset, key])


def preimages(dataset: str, keys: Iterable[Any]) -> list[bytes]:
    """`preimage` of many keys of one data set."""
    front = preimage(dataset, 0)[:-1]  # the key comes last
    short = [front + head(3, size) for size in range(256)]
    out = []
    for key in keys:
        if type(key) is str and len(text := key.encode()) < 256:  # most keys: a third of the price
            out.append(short[len(text)] + text)
        elif (made := _of_stage(key)) is not None:
            out.append(front + made)
        else:
            check_key(key)
            out.append(front + encode(key))
    return out


def _of_stage(key: Any) -> bytes | None:
    """`encode` of a stage's (stage, (parent ids), n), at a tenth of the price; None for any other key."""
    if type(key) is not tuple or len(key) != 3 or not (type(key[0]) is str and type(key[1]) is tuple):
        return None
    stage, parents, number = key
    if type(number) is not int or number < 0 or not parents:
        return None
    for parent in parents:
        if type(parent) is not bytes or len(parent) != 32:
            return None
    made: bytes = _front_of_stage(stage, len(parents)) + b"\x58\x20".join(parents) + head(0, number)
    return made


@functools.lru_cache(maxsize=64)
def _front_of_stage(stage: str, parents: int) -> bytes:
    text = stage.encode()
    return b"\x83" + head(3, len(text)) + text + head(4, parents) + b"\x58\x20"


def number_preimages(dataset: str, numbers: NDArray[np.unsignedinteger[Any]]) -> list[bytes]:
    """`preimage` of many keys that are numbers, (n,) unsigned, as columns: a fraction of the price of one by one."""
    front = np.frombuffer(preimage(dataset, 0)[:-1], np.uint8)
    if not len(numbers):
        return []
    least, most = np.searchsorted(_LEAST, [numbers.min(), numbers.max()], side="right").tolist()
    if least == most:
        return _number_preimages(front, numbers, least)
    kinds, out = np.searchsorted(_LEAST, numbers, side="right"), np.empty(len(numbers), dtype=object)
    for kind in np.unique(kinds).tolist():
        mine = kinds == kind
        out[mine] = _number_preimages(front, numbers[mine], kind)
    found: list[bytes] = out.tolist()
    return found


_LEAST = np.array([24, 1 << 8, 1 << 16, 1 << 32], dtype=np.uint64)  # RFC 8949 section 3: from here on a longer head


def _number_preimages(front: NDArray[np.uint8], numbers: NDArray[Any], kind: int) -> list[bytes]:
    size = (0, 1, 2, 4, 8)[kind]
    rows = np.empty((len(numbers), len(front) + 1 + size), dtype=np.uint8)
    rows[:, : len(front)] = front
    rows[:, len(front)] = numbers if not size else 23 + kind
    if size:
        rows[:, -size:] = numbers.astype(f">u{size}").view(np.uint8).reshape(-1, size)
    return _listed(rows)


def content_preimages(source_digests: Iterable[bytes] | NDArray[np.uint8]) -> list[bytes]:
    """`content_preimage` of many digests, given one by one or as (n, 32) uint8."""
    front = content_preimage(bytes(32))[:-32]
    if not isinstance(source_digests, np.ndarray):
        return [front + digest for digest in source_digests]
    rows = np.empty((len(source_digests), len(front) + 32), dtype=np.uint8)
    rows[:, : len(front)], rows[:, len(front) :] = np.frombuffer(front, np.uint8), source_digests
    return _listed(rows)


def _listed(rows: NDArray[np.uint8]) -> list[bytes]:
    found: list[bytes] = rows.view(f"V{rows.shape[1]}").reshape(-1).tolist()
    return found


def content_preimage(source_digest: bytes) -> bytes:
    """What a content digest is computed from: CBOR ["fgtrac content v1", SHA-256 of the source bytes]."""
    return encode(["fgtrac content v1", source_digest])


def check_key(key: Any, depth: int = MAX_DEPTH - 1) -> None:  # a preimage is an array around it
    """TypeError unless `key` is an int of 0 or more, text, bytes, or a tuple of these; ValueError for an int of more
    than 64 bits, text that has no UTF-8, and tuples nested too deep."""
    if isinstance(key, tuple):
        if not depth:
            raise ValueError(f"tuples nested deeper than {MAX_DEPTH - 1} are no key; use a flat one")
        for part in key:
            check_key(part, depth - 1)
    elif isinstance(key, bool) or not isinstance(key, int | str | bytes) or (isinstance(key, int) and key < 0):
        raise TypeError(
            f"{key!r:.60} of type {type(key).__name__} is no key; use an int >= 0, text, bytes or a tuple of these"
        )
    elif isinstance(key, int) and key >> 64:
        raise ValueError(f"an int of {key.bit_length()} bits does not fit 64 bits and is no key; use it as a text")
    elif isinstance(key, str) and not key.isascii():
        _check_text(key)


def _check_text(key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError as error:  # a surrogate without the other one
        raise ValueError(
            f"{key!r:.60} holds {key[error.start]!r}, half a character, and is no key; use bytes, or mend the text"
        ) from error


def key_of_plain(value: Any) -> Any:
    """The key that plain data stands for, as JSON or CBOR gives it: a list is a tuple, {"hex": "00ff"} is bytes.

    ValueError for what is no key.
    """
    if isinstance(value, list):
        return tuple(key_of_plain(v) for v in value)
    if isinstance(value, dict) and list(value) == ["hex"] and isinstance(value["hex"], str):
        return bytes.fromhex(value["hex"])
    if isinstance(value, bool) or not isinstance(value, int | str | bytes):
        raise ValueError(f"{value!r:.40} is no key")
    return value


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


def block_id(sorted_ids: bytes | memoryview | Iterable[NDArray[np.uint8]]) -> bytes:
    """The 16-byte name of a block: the beginning of SHA-256 over its ids in ascending order, whole or in pieces."""
    if isinstance(sorted_ids, bytes | memoryview):
        return hashlib.sha256(sorted_ids).digest()[:16]
    found = hashlib.sha256()
    for piece in sorted_ids:
        found.update(piece.data)
    return found.digest()[:16]


def make_ids(scheme: str, secret: bytes, preimages: Iterable[bytes]) -> bytes:
    """The ids of many preimages, one after another (32 bytes each). ValueError for an unknown scheme."""
    if scheme == "public":
        return b"".join([hashlib.sha256(p).digest() for p in preimages])
    if scheme not in SCHEMES:
        raise ValueError(f"id scheme {scheme!r} is none of {', '.join(SCHEMES)}")
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret has {len(secret)} bytes; ids are keyed by {SECRET_BYTES}")
    inner, outer = _pads(secret)
    inner += b"open"
    sha256 = hashlib.sha256
    out: list[bytes] = []
    take, inner_pad, outer_pad, inner_rest, outer_rest = out.append, _INNER, _OUTER, _INNER_REST, _OUTER_REST
    for p in preimages:  # RFC 2104 written out: a third of the price of two calls of hmac.digest
        key = sha256(outer + sha256(inner + p).digest()).digest()
        within = sha256(key.translate(inner_pad) + inner_rest + p).digest()
        take(sha256(key.translate(outer_pad) + outer_rest + within).digest())
    return b"".join(out)


_INNER, _OUTER = (bytes(b ^ pad for b in range(256)) for pad in (0x36, 0x5C))
_INNER_REST, _OUTER_REST = b"\x36" * 32, b"\x5c" * 32


def _pads(key: bytes) -> tuple[bytes, bytes]:
    """What HMAC-SHA256 under a key of 32 bytes hashes before the message, and before the inner digest."""
    return key.translate(_INNER) + _INNER_REST, key.translate(_OUTER) + _OUTER_REST
