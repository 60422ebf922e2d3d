"""Where processes of one file system meet: a folder with a file for each key, used like a torch.distributed store."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fgtrac.store import durable


class FolderStore:
    """Keys and values that all see who have the folder. It lives as long as one training: nothing in it is synced.

    One process `keeps` it; where that has cleared it, the others' `set` and `add` raise RuntimeError, as they do in a
    torch.distributed store.
    """

    def __init__(self, folder: Path, *, keeps: bool = True) -> None:
        self.folder = folder
        self._keeps = keeps

    def set(self, key: str, value: bytes) -> None:
        """Put a value in place, whatever was there."""
        self._check_kept()
        durable.write_file(self._path(key), value, mode=0o600, sync=False)

    def get(self, key: str) -> bytes:
        """The value of a key. FileNotFoundError where it has none."""
        return self._path(key).read_bytes()

    def check(self, keys: list[str]) -> bool:
        """Whether all these keys have values."""
        return all(self._path(key).exists() for key in keys)

    def add(self, key: str, _amount: int) -> int:
        """1 for the first that asks, 2 for all others."""
        self._check_kept()
        try:
            durable.create_file(self._path(key), b"", mode=0o600)
        except FileExistsError:
            return 2
        return 1

    def clear(self) -> None:
        """Remove every key, and the folder."""
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            durable.remove(path)
        durable.remove_empty(self.folder, self.folder.parent)

    def _check_kept(self) -> None:
        if not self._keeps and not self.folder.is_dir():
            raise RuntimeError(f"{self.folder} was removed by the process that keeps it")

    def _path(self, key: str) -> Path:
        return self.folder / hashlib.sha256(key.encode()).hexdigest()
