"""The one way to write a value as bytes: deterministic CBOR (RFC 8949 section 4.2.1), strictly decoded.

Integers of 64 bits, text, bytes, booleans, float64 (always eight bytes: the one deviation from 4.2.1), arrays, maps
with text keys in bytewise order of their encodings, and the little-endian typed arrays of RFC 8746. Whatever
`encode` would not have written, `decode` refuses, even where it would mean the same.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from fgtrac.errors import FormatError

MAX_DEPTH = 16
MAX_ITEMS = 1 << 18  # in all lists and maps of one value: four times what an entry has room for
TYPED_ARRAYS = {64: "<u1", 69: "<u2", 70: "<u4", 71: "<u8", 84: "<f2", 85: "<f4", 86: "<f8"}  # RFC 8746 section 2
_DTYPES = {tag: np.dtype(name) for tag, name in TYPED_ARRAYS.items()}
_TAG_OF = {np.dtype(name).newbyteorder("="): tag for tag, name in TYPED_ARRAYS.items()}
_ARGUMENT_BYTES = {24: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16), 27: (8, 1 << 32)}  # size, least value


def encode(value: Any) -> bytes:
    """The canonical bytes of `value`.

    Takes int (-2^63 to 2^64-1), str, bytes, bool, float, list or tuple, mappings with text keys, and one-dimensional
    numpy arrays of the typed array dtypes. TypeError for any other type, ValueError for what has no encoding (NaN,
    an integer too large, a lone surrogate, lists and maps nested deeper than MAX_DEPTH).
    """
    out: list[bytes] = []
    _write(value, out, 0)
    return b"".join(out)


def decode(data: bytes | memoryview) -> Any:
    """The value of canonical bytes; typed arrays come back as read-only views. FormatError for anything else."""
    reader = _Reader(data)
    value = reader.value(0)
    if reader.at != reader.end:
        raise FormatError(f"{reader.end - reader.at} bytes follow a value of {reader.at} bytes; one value is expected")
    return value


def head(major: int, argument: int) -> bytes:
    """The shortest head of a data item (RFC 8949 section 3)."""
    first = major << 5
    if argument < 24:
        return bytes((first | argument,))
    for code, (size, _least) in _ARGUMENT_BYTES.items():
        if argument < 1 << (8 * size):
            return bytes((first | code,)) + argument.to_bytes(size, "big")
    raise ValueError(f"{argument} does not fit 64 bits; write it as text")


def _write(value: Any, out: list[bytes], depth: int) -> None:
    if isinstance(value, bool):
        out.append(b"\xf5" if value else b"\xf4")
    elif isinstance(value, str):
        text = value.encode()
        out += (head(3, len(text)), text)
    elif isinstance(value, int):
        if value < -(1 << 63):
            raise ValueError(f"{value} does not fit 64 bits; write it as text")
        out.append(head(0, value) if value >= 0 else head(1, -1 - value))
    elif isinstance(value, (list, tuple)):
        depth = _deeper(depth)
        out.append(head(4, len(value)))
        for item in value:
            _write(item, out, depth)
    elif isinstance(value, bytes):
        out += (head(2, len(value)), value)
    elif isinstance(value, np.ndarray):
        _write_array(value, out)
    elif isinstance(value, float):
        if math.isnan(value):
            raise ValueError("NaN has no encoding outside arrays; leave the field out")
        out.append(b"\xfb" + struct.pack(">d", value))
    elif isinstance(value, Mapping):
        _write_map(value, out, _deeper(depth))
    else:
        raise TypeError(
            f"{type(value).__name__} has no encoding; use int, float, str, bytes, bool, lists, maps or arrays"
        )


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise ValueError(f"lists and maps are nested deeper than {MAX_DEPTH}; flatten the value")
    return depth + 1


def _write_array(value: np.ndarray[Any, Any], out: list[bytes]) -> None:
    tag = _TAG_OF.get(value.dtype.newbyteorder("="))
    if tag is None or value.ndim != 1:
        raise TypeError(
            f"an array of {value.dtype} with {value.ndim} dimensions has no encoding; flatten or convert it"
        )
    data = value.astype(_DTYPES[tag], copy=False).tobytes()
    out += (head(6, tag), head(2, len(data)), data)


def _write_map(value: Mapping[Any, Any], out: list[bytes], depth: int) -> None:
    pairs = []
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"map key {key!r} is no text; name fields by text")
        text = key.encode()
        pairs.append((head(3, len(text)) + text, key))
    pairs.sort()
    out.append(head(5, len(pairs)))
    for encoded, key in pairs:
        out.append(encoded)
        _write(value[key], out, depth)


class _Reader:
    """A cursor over one buffer; every length is checked against what is left before anything is made of it."""

    __slots__ = ("at", "data", "end", "room")

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = memoryview(data)
        self.at = 0
        self.end = len(data)
        self.room = MAX_ITEMS

    def value(self, depth: int) -> Any:
        major, info, argument = self.head()
        if major == 0:
            return argument
        if major == 3:
            return self.text(argument)
        if major == 2:
            return bytes(self.take(argument))
        if major == 6:
            return self.typed_array(argument)
        if major == 1:
            if argument >= 1 << 63:
                raise FormatError(f"negative integer below -2^63 at byte {self.at}; integers have 64 bits")
            return -1 - argument
        if major == 7:
            return self.simple(info, argument)
        if depth >= MAX_DEPTH:
            raise FormatError(f"arrays and maps are nested deeper than {MAX_DEPTH}")
        if major == 4:
            if argument > self.end - self.at:
                raise FormatError(f"an array of {argument} items cannot fit the {self.end - self.at} bytes left")
            self.make_room(argument)
            return [self.value(depth + 1) for _ in range(argument)]
        return self.map(argument, depth)

    def head(self) -> tuple[int, int, int]:
        if self.at >= self.end:
            raise FormatError(f"the bytes end after {self.end}, in the middle of a value")
        first = self.data[self.at]
        self.at += 1
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info, info
        if info > 27:
            raise FormatError(f"byte {first:#04x} at {self.at - 1}: indefinite lengths and reserved heads are refused")
        size, least = _ARGUMENT_BYTES[info]
        argument = int.from_bytes(self.take(size), "big")
        if argument < least and major != 7:
            raise FormatError(f"{argument} at byte {self.at} is not in its shortest form")
        return major, info, argument

    def take(self, size: int) -> memoryview:
        if size > self.end - self.at:
            raise FormatError(f"{size} bytes are announced and {self.end - self.at} are left")
        start = self.at
        self.at += size
        return self.data[start : self.at]

    def make_room(self, items: int) -> None:
        """Each item is an object of its own, and may take 64 times its bytes."""
        self.room -= items
        if self.room < 0:
            raise FormatError(f"lists and maps of more than {MAX_ITEMS} items")

    def text(self, size: int) -> str:
        try:
            return str(self.take(size), "utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"text before byte {self.at} is no UTF-8: {error.reason}") from error

    def simple(self, info: int, argument: int) -> bool | float:
        if info == 27:
            number: float = struct.unpack(">d", argument.to_bytes(8, "big"))[0]
            if math.isnan(number):
                raise FormatError("NaN stands outside an array; such a field is left out")
            return number
        if info in (20, 21):
            return info == 21
        raise FormatError(
            f"simple value or short float (code {info}) at byte {self.at}: only booleans and float64 stand"
        )

    def typed_array(self, tag: int) -> np.ndarray[Any, Any]:
        dtype = _DTYPES.get(tag)
        if dtype is None:
            raise FormatError(f"tag {tag} at byte {self.at} is none of the typed arrays {sorted(TYPED_ARRAYS)}")
        major, _info, size = self.head()
        if major != 2 or size % dtype.itemsize:
            raise FormatError(
                f"a typed array of {dtype} holds a byte string of a multiple of {dtype.itemsize}, not {size}"
            )
        array = np.frombuffer(self.take(size), dtype=dtype)
        if array.flags.writeable:
            array.flags.writeable = False
        return array

    def map(self, pairs: int, depth: int) -> dict[str, Any]:
        if pairs > (self.end - self.at) // 2:
            raise FormatError(f"a map of {pairs} pairs cannot fit the {self.end - self.at} bytes left")
        self.make_room(pairs)
        out: dict[str, Any] = {}
        before = b""
        for _ in range(pairs):
            start = self.at
            major, _info, size = self.head()
            if major != 3:
                raise FormatError(f"a map key at byte {start} is no text")
            key = self.text(size)
            encoded = bytes(self.data[start : self.at])
            if encoded <= before:
                raise FormatError(
                    f"map key {key!r} does not come after the one before it; keys are unique and in order"
                )
            before = encoded
            out[key] = self.value(depth + 1)
        return out
