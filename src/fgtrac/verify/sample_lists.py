"""Lists of samples or contents of any length: one name a line, read piece by piece and turned into columns.

id:HEX, or HEX    a sample id of 64 hex digits
key:JSON          a key, in every data set that is looked into; a list stands for a tuple, {"hex": "00ff"} for bytes
NAME:ROW          row ROW of the data set NAME
HEX  FILE         in a list of contents: the SHA-256 of a file's bytes, as `sha256sum` prints it; the rest is not read
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.events.identity import check_key, key_of_plain

MAX_LINE_BYTES = 4096
_ID = re.compile(rb"(?:id:)?([0-9a-fA-F]{64})")
_DIGEST = re.compile(rb"([0-9a-fA-F]{64})(?:\s.*)?", re.DOTALL)
_ROW = re.compile(r"(.*):([0-9]{1,19})", re.DOTALL)


@dataclass(slots=True)
class Lines:
    """One piece of a list: `ids` 32 bytes each, and keys in CBOR by the data set that they stand in (None: any)."""

    ids: list[bytes] = field(default_factory=list)
    keys: dict[str | None, list[bytes]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids) + sum(map(len, self.keys.values()))


def parse_samples(pieces: Iterable[bytes]) -> Iterator[Lines]:
    """The samples that the lines name, a piece at a time. FormatError naming the line that names none."""
    for first, lines in _split(pieces):
        found = Lines()
        for number, line in enumerate(lines, first):
            if not line:
                continue
            try:
                _add(found, line)
            except (ValueError, TypeError, RecursionError) as error:
                raise FormatError(
                    f"line {number}, {_show(line)}, names no sample ({error}); write id:HEX, key:JSON or NAME:ROW"
                ) from error
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


def _add(found: Lines, line: bytes) -> None:
    match = _ID.fullmatch(line)
    if match is not None:
        found.ids.append(bytes.fromhex(match[1].decode()))
        return
    text = line.decode()
    if text.startswith("key:"):
        key = key_of_plain(json.loads(text[4:]))
        check_key(key)
        found.keys.setdefault(None, []).append(encode(key))
        return
    row = None if text.startswith(("id:", "file:")) else _ROW.fullmatch(text)
    if row is None:
        raise ValueError("it has none of the forms")
    found.keys.setdefault(row[1], []).append(encode(int(row[2])))


def _split(pieces: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Whole lines without the blanks around them, and the number of the first of each piece's."""
    first, rest = 1, b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        _check_lengths(first, [*lines, rest])
        yield first, [line.strip() for line in lines]
        first += len(lines)
    yield first, [rest.strip()]


def _check_lengths(first: int, lines: list[bytes]) -> None:
    for number, line in enumerate(lines, first):
        if len(line) > MAX_LINE_BYTES:
            raise FormatError(f"line {number} has more than {MAX_LINE_BYTES:,} bytes; write one name a line")


def _show(line: bytes) -> str:
    return json.dumps(line[:60].decode(errors="replace"), ensure_ascii=False)
