"""Files whose digest lies beside them, written after them as `sha256sum` does: one that has it is whole, and stays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from fgtrac.store import durable


def write_whole(path: Path, pieces: Sequence[bytes], *, sync: bool = True) -> None:
    """Write a file, then NAME.sha256 in place of its suffix."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    durable.write_file(path, pieces, sync=sync)
    durable.write_file(path.with_suffix(".sha256"), _line(path, digest.hexdigest()), sync=sync)


def is_whole(path: Path) -> bool:
    """Whether a file is there with the digest that was kept of it."""
    kept = path.with_suffix(".sha256")
    if not (path.is_file() and kept.is_file()):
        return False
    with path.open("rb") as file:
        return kept.read_bytes() == _line(path, hashlib.file_digest(file, "sha256").hexdigest())


def remove_whole(path: Path) -> None:
    """Remove a file and its digest, which goes first."""
    durable.remove(path.with_suffix(".sha256"))
    durable.remove(path)


def _line(path: Path, digest: str) -> bytes:
    return f"{digest}  {path.name}\n".encode()
