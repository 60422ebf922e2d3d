"""Bytes at any place of a file, on this machine or far away: what a reader needs that must not read all of it."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path
from typing import Protocol


class OpenFile(Protocol):
    """A file that is open for reading; a context that closes it."""

    size: int

    def read_at(self, start: int, length: int) -> bytes:
        """At most `length` bytes from `start` on; fewer at the end."""

    def expect(self, start: int, length: int) -> None:
        """These bytes will be read soon."""

    def __enter__(self) -> OpenFile: ...

    def __exit__(self, *stopped: object) -> None: ...


class LocalFile:
    """A file on this machine. OSError where it cannot be read."""

    def __init__(self, path: Path, *, scattered: bool = False) -> None:
        """With `scattered`, the system reads nothing ahead."""
        self._file = FileIO(path)
        self._fd = self._file.fileno()
        self.size = os.fstat(self._fd).st_size
        if scattered:
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)

    def read_at(self, start: int, length: int) -> bytes:
        """As `OpenFile.read_at`: one system call."""
        return os.pread(self._fd, length, start)

    def expect(self, start: int, length: int) -> None:
        """As `OpenFile.expect`: the system fetches them from disk meanwhile."""
        os.posix_fadvise(self._fd, start, length, os.POSIX_FADV_WILLNEED)

    def __enter__(self) -> LocalFile:
        return self

    def __exit__(self, *stopped: object) -> None:
        self._file.close()
