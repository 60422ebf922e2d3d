"""Ids, openings and commitments, recomputed from hashlib and hmac alone."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.events import identity
from fgtrac.events.codec import decode

SECRET = bytes(range(32))
# ["fgtrac id v1", "digits", 7], written out by hand: array of 3, text of 12, text of 6, 7
PREIMAGE = b"\x83\x6cfgtrac id v1\x66digits\x07"


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def test_a_preimage_is_the_deterministic_cbor_of_name_and_key() -> None:
    assert identity.preimage("digits", 7) == PREIMAGE


def test_a_public_id_is_the_hash_of_the_preimage() -> None:
    assert identity.public_id(PREIMAGE) == hashlib.sha256(PREIMAGE).digest()
    assert identity.make_ids("public", b"", [PREIMAGE]) == hashlib.sha256(PREIMAGE).digest()


@pytest.mark.parametrize("scheme", ["keyed", "subject"])
def test_a_keyed_id_is_a_mac_under_a_key_that_opens_it_alone(scheme: str) -> None:
    opening = mac(SECRET, b"open" + PREIMAGE)
    assert identity.open_key(SECRET, PREIMAGE) == opening
    assert identity.id_from_opening(opening, PREIMAGE) == mac(opening, PREIMAGE)
    assert identity.keyed_id(SECRET, PREIMAGE) == mac(opening, PREIMAGE)
    assert identity.make_ids(scheme, SECRET, [PREIMAGE]) == mac(opening, PREIMAGE)


def test_an_opening_opens_no_other_sample() -> None:
    opening = identity.open_key(SECRET, PREIMAGE)
    other = identity.preimage("digits", 8)
    assert identity.id_from_opening(opening, other) != identity.keyed_id(SECRET, other)


def test_commitments_have_their_own_prefixes() -> None:
    assert identity.key_commitment(SECRET) == hashlib.sha256(b"fgtrac key v1\n" + SECRET).digest()
    assert identity.subject_commitment(SECRET) == hashlib.sha256(b"fgtrac subject v1\n" + SECRET).digest()


def test_a_content_preimage_is_no_id_preimage() -> None:
    source = hashlib.sha256(b"pixels").digest()
    assert identity.content_preimage(source) == b"\x82\x71fgtrac content v1\x58\x20" + source


def test_a_block_is_named_by_the_hash_of_its_ids() -> None:
    ids = bytes(64)
    assert identity.block_id(ids) == hashlib.sha256(ids).digest()[:16]


KEYS = st.recursive(
    st.integers(0, 2**64 - 1) | st.text() | st.binary(), lambda k: st.lists(k, max_size=3).map(tuple), max_leaves=8
)


@given(st.text(), KEYS)
def test_every_key_type_has_the_preimage_that_another_implementation_writes(name: str, key: Any) -> None:
    assert identity.preimage(name, key) == cbor2.dumps(["fgtrac id v1", name, key], canonical=True)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), KEYS), max_size=8, unique=True))
def test_ids_of_many_samples_are_those_of_each(names: list[tuple[str, Any]]) -> None:
    preimages = [identity.preimage(name, key) for name, key in names]
    assert len(set(preimages)) == len(names)
    assert identity.make_ids("keyed", SECRET, preimages) == b"".join(identity.keyed_id(SECRET, p) for p in preimages)


@pytest.mark.parametrize("key", [None, 1.0, True, -1, [1], {"a": 1}, (1, None), ((True,),), bytearray(b"a")])
def test_what_is_no_key_is_a_type_error(key: Any) -> None:
    with pytest.raises(TypeError, match="is no key"):
        identity.preimage("digits", key)


def test_a_key_of_more_than_64_bits_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="does not fit 64 bits and is no key"):
        identity.preimage("digits", 2**64)


@pytest.mark.parametrize("key", ["a\ud800", ("b", ("\udfff", 1))])
def test_a_text_without_utf_8_is_a_value_error_that_shows_why(key: Any) -> None:
    with pytest.raises(ValueError, match=r"holds '\\ud[8f][0f][0f]', half a character, and is no key; use bytes"):
        identity.check_key(key)


def nested(depth: int) -> Any:
    key: Any = "a"
    for _ in range(depth):
        key = (key,)
    return key


def test_a_key_is_nested_as_deep_as_its_preimage_can_be_read() -> None:
    deepest = identity.preimage("digits", nested(15))
    assert identity.preimages("digits", [nested(15)]) == [deepest]
    assert len(decode(deepest)) == 3
    for depth in (16, 17, 100_000):
        for preimages in (identity.preimage, lambda name, key: identity.preimages(name, [key])):
            with pytest.raises(ValueError, match="tuples nested deeper than 15 are no key"):
                preimages("digits", nested(depth))


def test_another_scheme_or_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="'open' is none of public, keyed, subject"):
        identity.make_ids("open", SECRET, [])
    with pytest.raises(ValueError, match="31 bytes"):
        identity.make_ids("keyed", SECRET[:31], [])


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 70_000), max_size=12))
def test_numbers_have_the_preimages_of_keys(numbers: list[int]) -> None:
    found = identity.number_preimages("digits", np.array(numbers, dtype=np.uint64))
    assert found == [identity.preimage("digits", number) for number in numbers]


@given(st.lists(KEYS, max_size=6))
def test_many_keys_have_the_preimages_of_each(keys: list[Any]) -> None:
    assert identity.preimages("digits", keys) == [identity.preimage("digits", key) for key in keys]


def test_long_texts_have_the_preimages_of_keys() -> None:
    keys = ["a" * size for size in (0, 23, 24, 255, 256, 70_000)]
    assert identity.preimages("digits", keys) == [identity.preimage("digits", key) for key in keys]


def test_content_preimages_are_the_same_from_a_column() -> None:
    digests = [hashlib.sha256(bytes([n])).digest() for n in range(5)]
    column = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    assert identity.content_preimages(column) == [identity.content_preimage(digest) for digest in digests]


def test_a_block_has_the_same_name_from_its_pieces() -> None:
    ids = np.arange(96, dtype=np.uint8).reshape(3, 32)
    assert identity.block_id([ids[:1], ids[1:]]) == identity.block_id(ids.tobytes())


@pytest.mark.parametrize(
    "key",
    [
        ("s", (b"a" * 32,), 0),
        ("s" * 300, (b"a" * 32, b"b" * 32) * 20, 70_000),
        ("ü", (b"\xff" * 32,), 23),
        ("s", (), 0),
        ("s", (b"a" * 31,), 0),
        ("s", (b"a" * 32, "x"), 1),
        (1, (b"a" * 32,), 2),
    ],
)
def test_the_key_of_a_stages_sample_is_encoded_like_any_other(key: Any) -> None:
    assert identity.preimages("made", [key]) == [identity.preimage("made", key)]


def test_what_is_nearly_a_stages_key_is_refused_like_any_other() -> None:
    for number in (-1, True):
        with pytest.raises(TypeError, match="is no key"):
            identity.preimages("made", [("s", (b"a" * 32,), number)])
