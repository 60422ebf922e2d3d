"""What a file's bytes are called on object storage, computed once for as long as the file stays as it is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PART_BYTES = 1 << 24  # a longer file goes in several parts, of which one is in memory
MAX_PARTS = 9000  # S3 takes 10,000
NOTED_BYTES = 1 << 18  # shorter files are many, and soon read
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file's bytes would be called on object storage: SHA-256, and the ETag that S3 gives (the MD5; of a file in
    parts the MD5 of theirs)."""

    size: int
    sha256: str
    etag: str


def part_bytes(size: int) -> int:
    """In what parts a file of that size goes."""
    return max(PART_BYTES, -(-size // MAX_PARTS))


def digest_of(pieces: Iterable[bytes], size: int) -> Digest:
    """The digest of a file of `size` bytes, which come in pieces of any length."""
    sha256, part = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    parts, most, read, room = [part], part_bytes(size), 0, part_bytes(size)
    for piece in pieces:
        sha256.update(piece)
        read += len(piece)
        rest = memoryview(piece)
        while len(rest):
            if not room:
                parts.append(part := hashlib.md5(usedforsecurity=False))
                room = most
            part.update(rest[:room])
            taken = min(room, len(rest))
            rest, room = rest[taken:], room - taken
    if size <= PART_BYTES:
        return Digest(read, sha256.hexdigest(), part.hexdigest())
    whole = hashlib.md5(b"".join([part.digest() for part in parts]), usedforsecurity=False)
    return Digest(read, sha256.hexdigest(), f"{whole.hexdigest()}-{len(parts)}")


class FileDigests:
    """Digests of files. One of at least NOTED_BYTES is read once for as long as its size, its inode and its times of
    change stay. For one thread."""

    def __init__(self) -> None:
        self._noted: dict[Path, tuple[tuple[int, ...], Digest]] = {}

    def of(self, place: Path) -> Digest:
        """The digest of a plain file. OSError where it cannot be read."""
        with place.open("rb") as file:
            about = os.fstat(file.fileno())
            seen = about.st_size, about.st_ino, about.st_mtime_ns, about.st_ctime_ns
            noted = self._noted.get(place)
            if noted is not None and noted[0] == seen:
                return noted[1]
            digest = digest_of(iter(lambda: file.read(_READ_BYTES), b""), about.st_size)
        if about.st_size >= NOTED_BYTES:
            self._noted[place] = seen, digest
        return digest
