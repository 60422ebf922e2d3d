"""Strict JSON within limits, as bundles are written in: read field by field, FormatError for anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from fgtrac.errors import FormatError
from fgtrac.events.schema import MAX_ENTRY_BYTES
from fgtrac.tlog.note import decode_base64
from fgtrac.tlog.proof import MAX_PATH

MAX_BYTES = 64 << 20
MAX_DEPTH = 5
MAX_VALUES = 5_000_000  # commas, colons and brackets: what the JSON decoder would have to make
MAX_TEXT = 1 << 20
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # +1 and -1
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
# Possessive, and an unterminated string is one too: what was passed over is never tried again, so it is linear.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def decode_json(data: bytes) -> Any:
    """The value of strict JSON: UTF-8, no key twice, whole numbers only, within the limits. FormatError otherwise."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"the file has {len(data):,} bytes; a bundle has at most {MAX_BYTES:,}")
    deepest, values = measure_json(data)
    if deepest > MAX_DEPTH or values > MAX_VALUES:
        raise FormatError(
            f"nested {deepest} deep with {values:,} values; a bundle has at most {MAX_DEPTH} and {MAX_VALUES:,}"
        )
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse, parse_int=_small
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"no strict JSON: {error}") from error


def measure_json(data: bytes) -> tuple[int, int]:
    """How deep these bytes are nested, and about how many values a JSON decoder would make of them.

    For before the decoding: a decoder overflows the C stack where the recursion limit is high, as py-evm sets it.
    """
    bare = _STRING.sub(b"", data)
    steps = np.frombuffer(bare.translate(_STEPS, _NO_BRACKETS), dtype=np.int8)
    deepest = int(np.cumsum(steps, dtype=np.int32).max(initial=0))
    return deepest, sum(map(bare.count, (b",", b":", b"[", b"{")))


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text:.40} is no whole number")


def _small(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError(f"{text:.40} is no code from 0 to 65535; larger numbers are decimal strings")
    return int(text)


def read_fields(value: Any, what: str, needed: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    """An object with these fields and no others."""
    if not isinstance(value, dict):
        raise FormatError(f"{what} is an object, not {value!r:.60}")
    missing = [name for name in needed if name not in value]
    unknown = [name for name in value if name not in needed and name not in optional]
    if missing or unknown:
        lacks = [f"lacks {', '.join(missing)}"] if missing else []
        has = [f"has the unknown {', '.join(map(repr, unknown)):.80}"] if unknown else []
        raise FormatError(f"{what} {' and '.join(lacks + has)}")
    return value


def read_list(value: Any, what: str, limit: int, least: int = 0) -> list[Any]:
    """A list of `least` to `limit` items."""
    if not isinstance(value, list) or not least <= len(value) <= limit:
        raise FormatError(f"{what} is a list of {least} to {limit:,} items, not {value!r:.60}")
    return value


def read_text(value: Any, what: str, limit: int = MAX_TEXT) -> str:
    """Text of at most `limit` characters."""
    if not isinstance(value, str) or len(value) > limit:
        raise FormatError(f"{what} is text of at most {limit} characters, not {value!r:.60}")
    return value


def read_hex(value: Any, what: str, size: int | None = None) -> bytes:
    """Bytes in lower case hex, of one size where it is given."""
    text = read_text(value, what, 2 * MAX_ENTRY_BYTES)
    try:
        raw = bytes.fromhex(text)
    except ValueError as error:
        raise FormatError(f"{what} is hex digits, not {text!r:.60}") from error
    if raw.hex() != text or size not in (None, len(raw)):
        raise FormatError(f"{what} is {'' if size is None else 2 * size} lower case hex digits, not {text!r:.80}")
    return raw


def read_u64(value: Any, what: str) -> int:
    """A number from 0 to 10^19-1 as a decimal string."""
    text = read_text(value, what, 19)
    if not (text.isascii() and text.isdigit()) or str(int(text)) != text:
        raise FormatError(f"{what} is a decimal string below 10^19, not {text!r}")
    return int(text)


def read_code(value: Any, what: str, below: int) -> int:
    """A number from 0 up to `below` as a JSON integer."""
    if type(value) is not int or not 0 <= value < below:
        raise FormatError(f"{what} is a number below {below}, not {value!r:.40}")
    return value


def read_entry(value: Any, what: str) -> bytes:
    """An entry's bytes in base64."""
    entry = decode_base64(read_text(value, what, 2 * MAX_ENTRY_BYTES), what)
    if len(entry) > MAX_ENTRY_BYTES:
        raise FormatError(f"{what} has {len(entry):,} bytes; an entry has at most {MAX_ENTRY_BYTES:,}")
    return entry


def read_path(value: Any, what: str) -> tuple[bytes, ...]:
    """An audit path: hashes in base64."""
    hashes = tuple(decode_base64(read_text(h, what, 44), what) for h in read_list(value, what, MAX_PATH))
    if any(len(h) != 32 for h in hashes):
        raise FormatError(f"{what} holds a hash that has not 32 bytes")
    return hashes
