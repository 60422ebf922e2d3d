"""The one grammar of samples' names, for people, lists of opt-outs and verifiers.

id:HEX           the sample of this id, 64 hex digits
key:JSON         the sample of this key; a list stands for a tuple, {"hex": "00ff"} for bytes
NAME:key:JSON    the sample of this key in the data set NAME, which ends at the first `:key:`
NAME:ROW         the sample of the data set NAME whose key is the number ROW: its row, where no key= was given
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from operator import eq
from typing import Any

from fgtrac.events.codec import encode
from fgtrac.events.identity import check_key, key_of_plain

FORMS = "id:HEX, key:JSON, NAME:key:JSON or NAME:ROW"
CONTENTS = ("file:", "row:")  # these name a content, whoever holds it
_TAKEN = ("id:", "key:", *CONTENTS, "class:", "role:")


@dataclass(frozen=True, slots=True)
class SampleName:
    """What a name says: an id, or a key in a data set (None: in whichever has it). `by_number`: as NAME:ROW. `encoded`:
    the key in CBOR."""

    id: bytes | None = None
    dataset: str | None = None
    key: Any = None
    by_number: bool = False
    encoded: bytes = field(default=b"", compare=False)


def parse_sample_name(text: str) -> SampleName:
    """The sample that a text names. ValueError, with the reason, for a text that names none."""
    if text.startswith("id:"):
        return SampleName(id=parse_id(text.removeprefix("id:")))
    if text.startswith("key:"):
        return _of_key(None, text.removeprefix("key:"))
    if text.startswith(CONTENTS):
        raise ValueError("it names a content, no sample")
    dataset, mark, key = text.partition(":key:")
    if mark:
        return _of_key(dataset, key)
    dataset, colon, row = text.rpartition(":")
    if not colon:
        raise ValueError("it has none of the forms")
    if not (row.isascii() and row.isdigit() and len(row) < 20):
        raise ValueError(f"{row!r:.40} is no row number")
    return SampleName(dataset=dataset, key=int(row), by_number=True, encoded=encode(int(row)))


def parse_id(digits: str) -> bytes:
    """An id of 64 hex digits. ValueError for anything else."""
    try:
        sample_id = bytes.fromhex(digits)
    except ValueError:
        sample_id = b""
    if len(sample_id) != 32 or sample_id.hex() != digits.lower():
        raise ValueError("an id has 64 hex digits")
    return sample_id


def _of_key(dataset: str | None, text: str) -> SampleName:
    """The name with a key that is written in JSON. ValueError for what is no key."""
    try:
        key = key_of_plain(json.loads(text))
        check_key(key)
        return SampleName(dataset=dataset, key=key, encoded=encode(key))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f'{text!r:.80} is no key in JSON ({error}); a key is like 5 or "name"') from error


def check_dataset_name(name: str) -> None:
    """ValueError for a name with which the grammar would read NAME:ROW or NAME:key:JSON as something else."""
    written = f"{name}:"
    if written.startswith(_TAKEN) or ":key:" in written:
        raise ValueError(
            f"a data set cannot be named {name!r:.60}: the name of a sample in it would be read as something else; "
            f"choose one that does not begin with {', '.join(_TAKEN)} and has no :key: in it"
        )


def kind_of_keys(keys: Sequence[Any]) -> str:
    """What a `dataset` entry says of the keys of its rows: that they are the row numbers, other numbers, or not only
    numbers."""
    if keys == range(len(keys)) or all(map(eq, keys, count())):
        return "rows"
    return "numbers" if all(type(key) is int for key in keys) else "names"
