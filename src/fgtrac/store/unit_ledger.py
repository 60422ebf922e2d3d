"""Which units of work are finished, with the SHA-256 of what each gave: what lets work that was cut short go on.

The ledger lies where only its owner writes, so that files in a folder that others can write to are believed for what
it says of them.
"""

from __future__ import annotations

from pathlib import Path

from fgtrac.store import durable
from fgtrac.store.durable import AppendFile


class UnitLedger:
    """Lines of a unit's name and the SHA-256 of its files. A last line that was cut is passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        self._known: dict[str, bytes] = {}
        for line in lines:
            name, _, digest = line.decode(errors="replace").rstrip("\n").rpartition(" ")
            if line.endswith(b"\n") and len(digest) == 64 and set(digest) <= set("0123456789abcdef"):
                self._known[name] = bytes.fromhex(digest)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = AppendFile(path)
        if lines and not lines[-1].endswith(b"\n"):
            self._file.append(b"\n")

    def known(self, name: str) -> bytes:
        """The SHA-256 of what a unit gave; empty where it is not finished."""
        return self._known.get(name, b"")

    def names(self, front: str) -> list[str]:
        """What stands behind that front in the names of finished units."""
        return [name.removeprefix(front) for name in self._known if name.startswith(front)]

    def add(self, name: str, digest: bytes) -> None:
        """A unit is finished."""
        if self._known.get(name) != digest:
            self._known[name] = digest
            self._file.append(f"{name} {digest.hex()}\n".encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def remove(self) -> None:
        """All the work is done."""
        self.close()
        durable.remove(self._path)
