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
from itertools import compress, count

from fgtrac.errors import FormatError
from fgtrac.events.codec import head
from fgtrac.events.sample_names import FORMS, parse_sample_name

MAX_LINE_BYTES = 4096
# A line that is an id, one that is NAME:ROW with a plain name, or any other: all lines of a piece in one go.
_LINES = re.compile(
    rb"^(?:(?:id:)?([0-9a-fA-F]{64})|(?!(?:id|key|file|row):)([A-Za-z0-9_.-]++):([0-9]{1,19})|(.+))$", re.MULTILINE
)
_DIGEST = re.compile(rb"([0-9a-fA-F]{64})(?:\s.*)?", re.DOTALL)


@dataclass(slots=True)
class Keys:
    """Keys in CBOR that lines name in one form, and the first of these lines with its number."""

    number: int
    line: bytes
    keys: list[bytes] = field(default_factory=list)

    @property
    def first(self) -> str:
        """The first line as a message shows it."""
        return _show(self.number, self.line)


@dataclass(slots=True)
class Lines:
    """One piece of a list: `ids` 32 bytes each, and `keys` by the data set that they stand in (None: any) and by
    whether the lines are NAME:ROW."""

    ids: list[bytes] = field(default_factory=list)
    keys: dict[tuple[str | None, bool], Keys] = field(default_factory=dict)

    def add_key(self, place: tuple[str | None, bool], key: bytes, number: int, line: bytes) -> None:
        """A key in CBOR, and the line that names it."""
        some = self.keys.get(place)
        if some is None:
            some = self.keys[place] = Keys(number, line)
        some.keys.append(key)

    def __len__(self) -> int:
        return len(self.ids) + sum(len(some.keys) for some in self.keys.values())


def parse_samples(pieces: Iterable[bytes]) -> Iterator[Lines]:
    """The samples that the lines name, a piece at a time. FormatError naming the line that names none."""
    for numbers, lines in _split(pieces):
        found = Lines()
        read = _LINES.findall(b"\n".join(lines))
        for number, line, (digits, dataset, row, other) in zip(numbers, lines, read, strict=True):
            if digits:
                found.ids.append(bytes.fromhex(digits.decode()))
            elif row:
                found.add_key((dataset.decode(), True), head(0, int(row)), number, line)
            elif other.startswith(b"#"):
                raise FormatError(
                    f"{_show(number, line)}, begins with #, and a list has no comments; leave the line out (a sample "
                    "of a data set whose name begins so is named by id:HEX)"
                )
            else:
                _add(found, number, line)
        yield found


def parse_digests(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The SHA-256 digests (32 bytes each) that the lines begin with, a piece at a time. FormatError naming the line."""
    for numbers, lines in _split(pieces):
        found = []
        for number, line in zip(numbers, lines, strict=True):
            match = _DIGEST.fullmatch(line)
            if match is not None:
                found.append(bytes.fromhex(match[1].decode()))
            else:
                raise FormatError(f"{_show(number, line)}, begins with no SHA-256 of 64 hex digits")
        yield found


def _add(found: Lines, number: int, line: bytes) -> None:
    try:
        name = parse_sample_name(line.decode())
    except ValueError as error:
        raise FormatError(f"{_show(number, line)}, names no sample: {error}; write {FORMS}") from error
    found.add_key((name.dataset, name.by_number), name.encoded, number, line)


def _split(pieces: Iterable[bytes]) -> Iterator[tuple[list[int], list[bytes]]]:
    """The numbers of the lines of each piece that are not blank, and these lines without the blanks around them."""
    first, rest = 1, b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        _check_lengths(first, [*lines, rest])
        yield _strip(first, lines)
        first += len(lines)
    yield _strip(first, [rest])


def _strip(first: int, lines: list[bytes]) -> tuple[list[int], list[bytes]]:
    if first == 1 and lines:
        lines = [lines[0].removeprefix(BOM_UTF8), *lines[1:]]  # some editors put it before UTF-8
    lines = [line.strip() for line in lines]
    return list(compress(count(first), lines)), list(filter(None, lines))


def _check_lengths(first: int, lines: list[bytes]) -> None:
    for number, length in enumerate(map(len, lines), first):
        if length > MAX_LINE_BYTES:
            raise FormatError(f"line {number} has more than {MAX_LINE_BYTES:,} bytes; write one name a line")


def _show(number: int, line: bytes) -> str:
    return f"line {number}, {json.dumps(line[:60].decode(errors='replace'), ensure_ascii=False)}"
