"""What a file is called on object storage: of any pieces, in little memory, and read once while it stays as it is."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from counted_digests import count_digests
from fgtrac.store import file_digests
from fgtrac.store.file_digests import NOTED_BYTES, Digest, FileDigests, digest_of


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.mark.parametrize("pieces", [[b"abcd", b"efgh", b"i"], [b"a", b"bcdefg", b"hi"], [b"abcdefghi"]])
def test_a_digest_is_the_etag_of_parts_however_they_are_read(
    pieces: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_digests, "PART_BYTES", 4)
    parts = [hashlib.md5(part).digest() for part in (b"abcd", b"efgh", b"i")]
    found = digest_of(pieces, 9)
    assert found == Digest(9, hashlib.sha256(b"abcdefghi").hexdigest(), md5(b"".join(parts)) + "-3")


def test_a_digest_is_the_etag_of_one_put() -> None:
    assert digest_of([b"ab", b"c"], 3).etag == md5(b"abc")
    assert digest_of([], 0).etag == md5(b"")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what was read."""
    return count_digests(monkeypatch)


def replaced(path: Path, data: bytes) -> None:
    (path.parent / "new").write_bytes(data)
    (path.parent / "new").replace(path)


def written_over(path: Path, data: bytes) -> None:
    was = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


@pytest.mark.parametrize("change", [replaced, written_over])
def test_a_file_is_read_again_once_it_was_changed(
    change: Callable[[Path, bytes], None], tmp_path: Path, reads: list[int]
) -> None:
    path, digests = tmp_path / "state", FileDigests()
    path.write_bytes(b"a" * NOTED_BYTES)
    assert digests.of(path).etag == digests.of(path).etag == md5(b"a" * NOTED_BYTES)
    assert len(reads) == 1
    change(path, b"b" * NOTED_BYTES)
    assert digests.of(path).etag == md5(b"b" * NOTED_BYTES)
    assert len(reads) == 2


def test_small_files_are_read_each_time_and_not_kept_in_mind(tmp_path: Path, reads: list[int]) -> None:
    path, digests = tmp_path / "tile", FileDigests()
    path.write_bytes(b"a" * (NOTED_BYTES - 1))
    assert digests.of(path) == digests.of(path)
    assert len(reads) == 2
    assert not digests._noted


def test_a_long_file_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    tracemalloc.start()
    try:
        assert FileDigests().of(path).etag.endswith("-2")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
