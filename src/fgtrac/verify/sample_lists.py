"""Lists of samples or contents of any length: one name a line, read piece by piece and turned into columns.

HEX          a sample id of 64 hex digits, or another name as `events.sample_names` has them; a key without a data set
             stands for each data set that is looked into
HEX  FILE    in a list of contents: the SHA-256 of a file's bytes, as `sha256sum` prints it; the rest is not read
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.events.sample_names import FORMS, parse_sample_name

MAX_LINE_BYTES = 4096
_ID = re.compile(rb"(?:id:)?([0-9a-fA-F]{64})")
_DIGEST = re.compile(rb"([0-9a-fA-F]{64})(?:\s.*)?", re.DOTALL)


@dataclass(slots=True)
class Keys:
    """Keys in CBOR that lines name in one form, and the first of these lines as a message shows it."""

    first: str
    keys: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class Lines:
    """One piece of a list: `ids` 32 bytes each, and `keys` by the data set that they stand in (None: any) and by
    whether the lines are NAME:ROW."""

    ids: list[bytes] = field(default_factory=list)
    keys: dict[tuple[str | None, bool], Keys] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids) + sum(len(some.keys) for some in self.keys.values())


def parse_samples(pieces: Iterable[bytes]) -> Iterator[Lines]:
    """The samples that the lines name, a piece at a time. FormatError naming the line that names none."""
    for first, lines in _split(pieces):
        found = Lines()
        for number, line in enumerate(lines, first):
            match = _ID.fullmatch(line)
            if match is not None:
                found.ids.append(bytes.fromhex(match[1].decode()))
            elif line.startswith(b"#"):
                raise FormatError(
                    f"line {number}, {_show(line)}, begins with #, and a list has no comments; leave the line out (a "
                    "sample of a data set whose name begins so is named by id:HEX)"
                )
            elif line:
                _add(found, number, line)
        yield found


def parse_digests(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The SHA-256 digests (32 bytes each) that the lines begin with, a piece at a time. FormatError naming the line."""
    for first, lines in _split(pieces):
        found = []
        for number, line in enumerate(lines, first):
            match = _DIGEST.fullmatch(line)
            if match is not None:
                found.append(bytes.fromhex(match[1].decode()))
            elif line:
                raise FormatError(f"line {number}, {_show(line)}, begins with no SHA-256 of 64 hex digits")
        yield found


def _add(found: Lines, number: int, line: bytes) -> None:
    shown = f"line {number}, {_show(line)}"
    try:
        name = parse_sample_name(line.decode())
    except ValueError as error:
        raise FormatError(f"{shown}, names no sample: {error}; write {FORMS}") from error
    place = name.dataset, name.by_number
    if place not in found.keys:
        found.keys[place] = Keys(shown)
    found.keys[place].keys.append(encode(name.key))


def _split(pieces: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Whole lines without the blanks around them, and the number of the first of each piece's."""
    first, rest = 1, b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        _check_lengths(first, [*lines, rest])
        yield first, _strip(first, lines)
        first += len(lines)
    yield first, _strip(first, [rest])


def _strip(first: int, lines: list[bytes]) -> list[bytes]:
    """Lines without the blanks around them; line 1 without the mark that some editors put before UTF-8."""
    return [(line.removeprefix(BOM_UTF8) if number == 1 else line).strip() for number, line in enumerate(lines, first)]


def _check_lengths(first: int, lines: list[bytes]) -> None:
    for number, line in enumerate(lines, first):
        if len(line) > MAX_LINE_BYTES:
            raise FormatError(f"line {number} has more than {MAX_LINE_BYTES:,} bytes; write one name a line")


def _show(line: bytes) -> str:
    return json.dumps(line[:60].decode(errors="replace"), ensure_ascii=False)
