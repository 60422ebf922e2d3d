"""What is fuzzed: a parser, what it may refuse with, how its values are written again, real inputs to start from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgtrac.errors import FormatError


@dataclass(frozen=True, slots=True)
class Real:
    """Where real inputs come from: a sealed trace with factors, and what else lies beside it."""

    trace: Path
    folder: Path

    def files(self, *patterns: str) -> list[bytes]:
        """The files of the trace that match."""
        return [p.read_bytes() for pattern in patterns for p in sorted(self.trace.glob(pattern)) if p.is_file()]


@dataclass(frozen=True, slots=True)
class Target:
    """A parser of bytes. Whatever they are, it gives a value or raises one of `refusals` with one line of words.

    With `format`, a value is written again: the same bytes where there is one way only (`is_canonical`), otherwise
    bytes that mean the same value and are then written as they are. `worst` are inputs of about a megabyte made to cost
    the parser much.
    """

    name: str
    parse: Callable[[bytes], Any]
    seeds: Callable[[Real], Iterable[bytes]]
    format: Callable[[Any], bytes] | None = None
    is_canonical: bool = True
    refusals: tuple[type[Exception], ...] = (FormatError,)
    worst: Callable[[], Iterable[bytes]] = field(default=tuple)

    def check(self, data: bytes) -> bool:
        """Whether the parser took the bytes. AssertionError, or whatever the parser raised, for a finding."""
        try:
            value = self.parse(data)
        except self.refusals as error:
            if type(error) is UnicodeDecodeError or not str(error) or "\n" in str(error):
                raise AssertionError(f"{self.name} refuses in no one line of words: {error!r:.200}") from error
            return False
        if self.format is not None:
            written = self.format(value)
            if self.is_canonical and written != data:
                raise AssertionError(f"{self.name} takes {data[:200]!r} and writes {written[:200]!r}")
            if not self.is_canonical and self.format(self.parse(written)) != written:
                raise AssertionError(f"{self.name} does not write {written[:200]!r} as it is")
        return True


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """For parsers of files: in memory, where the machine has such a place."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="fgtrac-fuzz-", dir=memory if memory.is_dir() else None)


def text_of(data: bytes) -> str:
    """Any bytes as text, so that `bytes_of` gives them back."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """The bytes behind a text of `text_of`."""
    return text.encode("utf-8", "surrogateescape")


def filled(piece: bytes, size: int = 1 << 20) -> bytes:
    """A megabyte, or `size` bytes, of one piece again and again."""
    return (piece * (size // len(piece) + 1))[:size]
