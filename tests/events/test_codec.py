"""One value, one encoding: vectors of RFC 8949, another implementation, both round trips, every refusal."""

from __future__ import annotations

import math
import struct
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtrac.errors import FormatError
from fgtrac.events.codec import MAX_DEPTH, TYPED_ARRAYS, decode, encode

VECTORS: list[tuple[Any, str]] = [  # RFC 8949 appendix A, as far as the types go
    (0, "00"),
    (1, "01"),
    (10, "0a"),
    (23, "17"),
    (24, "1818"),
    (25, "1819"),
    (100, "1864"),
    (1000, "1903e8"),
    (1000000, "1a000f4240"),
    (1000000000000, "1b000000e8d4a51000"),
    (18446744073709551615, "1bffffffffffffffff"),
    (-1, "20"),
    (-10, "29"),
    (-100, "3863"),
    (-1000, "3903e7"),
    (-(2**63), "3b7fffffffffffffff"),
    (1.1, "fb3ff199999999999a"),
    (1.0e300, "fb7e37e43c8800759c"),
    (-4.1, "fbc010666666666666"),
    (False, "f4"),
    (True, "f5"),
    (b"", "40"),
    (b"\1\2\3\4", "4401020304"),
    ("", "60"),
    ("a", "6161"),
    ("IETF", "6449455446"),
    ('"\\', "62225c"),
    ("\u00fc", "62c3bc"),
    ("\u6c34", "63e6b0b4"),
    ("\U00010151", "64f0908591"),
    ([], "80"),
    ([1, 2, 3], "83010203"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    (list(range(1, 26)), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"),
    ({}, "a0"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    (["a", {"b": "c"}], "826161a161626163"),
    ({c: c.upper() for c in "abcde"}, "a56161614161626142616361436164614461656145"),
]


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(("value", "data"), VECTORS)
def test_the_vectors_of_rfc_8949_hold_both_ways(value: Any, data: str) -> None:
    assert encode(value).hex() == data
    back = decode(bytes.fromhex(data))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(("tag", "name"), sorted(TYPED_ARRAYS.items()))
def test_a_typed_array_is_a_tagged_byte_string_in_little_endian(tag: int, name: str) -> None:
    array = np.array([1, 250], dtype=np.dtype(name).newbyteorder(">"))
    little = array.astype(name)
    assert encode(array) == bytes((0xD8, tag, 0x40 | 2 * little.itemsize)) + little.tobytes()
    back = decode(encode(array))
    assert back.dtype == np.dtype(name)
    assert np.array_equal(back, array)
    assert not back.flags.writeable
    assert len(decode(encode(array[:0]))) == 0


ARRAYS = st.builds(
    lambda name, data: np.frombuffer(data[: len(data) // 8 * 8], dtype=name),
    st.sampled_from(sorted(TYPED_ARRAYS.values())),
    st.binary(max_size=40),
)
PLAIN = st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.binary() | st.text() | st.sampled_from([23, 24, 255, 256])
LEAVES = PLAIN | st.floats(allow_nan=False) | ARRAYS


def grow(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4))


def same(a: Any, b: Any) -> bool:
    """Equal in type and in every bit."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    return bool(a == b)


@given(grow(LEAVES))
def test_every_value_comes_back(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(grow(PLAIN))
def test_another_implementations_canonical_encoding_is_the_same(value: Any) -> None:
    assert encode(value) == cbor2.dumps(value, canonical=True)


@given(grow(PLAIN | st.floats(allow_nan=False)))
def test_another_implementation_reads_what_is_written(value: Any) -> None:
    assert same(cbor2.loads(encode(value)), value)


@settings(max_examples=1000)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_with_just_that_encoding_or_a_format_error(data: bytes) -> None:
    try:
        value = decode(data)
    except FormatError:
        return
    assert encode(value) == data


@settings(max_examples=500)
@given(grow(LEAVES), st.data())
def test_a_changed_byte_gives_another_value_or_a_format_error(value: Any, draw: st.DataObject) -> None:
    data = bytearray(encode(value))
    data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        back = decode(bytes(data))
    except FormatError:
        return
    assert encode(back) == bytes(data)
    assert not same(back, value)


@settings(max_examples=200, deadline=None)  # a long value is cut in as many places
@given(grow(LEAVES))
def test_a_value_cut_anywhere_or_with_a_byte_more_is_refused(value: Any) -> None:
    data = encode(value)
    for wrong in (*(data[:stop] for stop in range(len(data))), data + b"\0"):
        with pytest.raises(FormatError):
            decode(wrong)


REFUSED = {
    "1 in two bytes": "1801",
    "255 in three bytes": "1900ff",
    "65535 in five bytes": "1a0000ffff",
    "2^32-1 in nine bytes": "1b00000000ffffffff",
    "-1 in two bytes": "3800",
    "a text length in two bytes": "780161",
    "a tag in three bytes": "d9004040",
    "a negative integer below -2^63": "3b8000000000000000",
    "null": "f6",
    "undefined": "f7",
    "a simple value": "f0",
    "a simple value of two bytes": "f8ff",
    "false in two bytes": "f814",
    "a float of two bytes": "f93c00",
    "a float of four bytes": "fa3f800000",
    "NaN": "fb7ff8000000000000",
    "a bignum": "c249010000000000000000",
    "a date": "c074323031332d30332d32315432303a30343a30305a",
    "a big-endian typed array": "d84142" + "0001",
    "an int8 array": "d84840",
    "a typed array of text": "d84060",
    "a uint16 array of three bytes": "d84543" + "000000",
    "an indefinite byte string": "5f4100ff",
    "an indefinite text": "7f6161ff",
    "an indefinite array": "9f00ff",
    "an indefinite map": "bf616100ff",
    "a break": "ff",
    "a reserved head": "1c",
    "a key that is a number": "a10000",
    "a key that is bytes": "a1416100",
    "a key twice": "a2616100616101",
    "keys out of order": "a2616200616101",
    "a longer key before a shorter one": "a262616100616201",
    "text that is no UTF-8": "61ff",
    "an encoded surrogate": "63eda080",
    "two values": "0000",
    "nothing": "",
    "2^64-1 bytes": "5bffffffffffffffff",
    "2^63 items": "9b8000000000000000",
    "2^63 pairs": "bb8000000000000000",
    "2^64-1 bytes of an array": "d8405bffffffffffffffff",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_encode_would_not_write_is_refused(data: str) -> None:
    with pytest.raises(FormatError):
        decode(bytes.fromhex(data))


def test_values_are_nested_as_deep_written_as_read() -> None:
    assert decode(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(ValueError, match=f"deeper than {MAX_DEPTH}"):
        encode(nested(MAX_DEPTH + 1))
    for opening in (b"\x81", b"\xa1\x60"):
        with pytest.raises(FormatError, match=f"deeper than {MAX_DEPTH}"):
            decode(opening * 60_000)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="deeper"):
        encode(loop)


@pytest.mark.parametrize("value", [math.nan, 2**64, -(2**63) - 1, "\ud800", {"\udfff": 1}])
def test_a_value_without_an_encoding_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"has no encoding|does not fit 64 bits|surrogates not allowed"):
        encode(value)


@pytest.mark.parametrize(
    "value",
    [None, {1: 2}, {b"a": 1}, object(), {1}, 1j, bytearray(b"a"), np.int64(1), np.zeros((2, 2)), np.array(1),
     np.zeros(2, "i4"), np.array(["a"]), np.zeros(2, object), np.zeros(2, bool)],
)  # fmt: skip
def test_a_type_without_an_encoding_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        encode(value)


def test_infinities_and_the_negative_zero_keep_their_bits() -> None:
    for number in (math.inf, -math.inf, -0.0, 5e-324):
        assert same(decode(encode(number)), number)
