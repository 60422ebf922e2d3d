"""What a stranger's server may answer: each ends soon, in little memory, in one line; a run goes on whatever it is."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from far_traces import Growing
from fgtrac.api.push import push_trace
from fgtrac.api.push_behind import PushBehind
from fgtrac.api.trace import open_for_verification
from fgtrac.errors import FgtracError, FormatError, StorageError
from fgtrac.store import object_storage
from fgtrac.store.far_trace import FarTrace
from fgtrac.store.object_storage import Objects
from strange_s3 import strange_s3

SOON_S = 20.0
LITTLE_BYTES = 200_000_000  # an object may be 32 MiB; three copies of it for a moment


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    made = Growing(tmp_path)
    made.more(3)
    return made


@pytest.fixture
def stranger(growing: Growing, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    note = growing.made.trace.head_note()
    assert note is not None
    monkeypatch.setattr(object_storage, "MAX_LISTED", 2000)
    with strange_s3(monkeypatch, note) as where:
        yield where


READ = {
    "endless": "sends more than the 33,554,432 bytes that were asked for",
    "drip": "did not answer.*TimeoutError",
    "no-etag": "leaves out ETag",
    "other-range": "gives another range",
    "endless-error": "did not answer",
}


@pytest.mark.parametrize("bucket", READ)
def test_an_object_that_is_none_ends_a_reader_soon_and_in_little_memory(bucket: str, stranger: str) -> None:
    tracemalloc.start()
    begun = time.monotonic()
    try:
        with pytest.raises(StorageError, match=READ[bucket]):
            open_for_verification(f"s3://{bucket}/run.trace")
        assert tracemalloc.get_traced_memory()[1] < LITTLE_BYTES
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begun < SOON_S


LISTED = {
    "endless-list": "lists no end of objects.*2,100 so far",
    "endless-page": "did not answer",
    "no-token": "leaves out NextContinuationToken",
    "no-size": "leaves out Size",
    "elsewhere": "lists 'other.trace/y' below s3://elsewhere/run.trace/",
    "no-etag": "does not heed If-None-Match",
}


@pytest.mark.parametrize("bucket", LISTED)
def test_a_listing_that_is_none_ends_a_push_soon_and_a_run_goes_on(
    bucket: str, stranger: str, growing: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.monotonic()
    with pytest.raises(FgtracError, match=LISTED[bucket]):
        push_trace(growing.path, f"s3://{bucket}/run.trace")
    monkeypatch.setenv("FGTRAC_PUSH", f"s3://{bucket}/x")
    with pytest.warns(RuntimeWarning, match="was sealed and not pushed"):
        PushBehind(growing.path)()
    assert time.monotonic() - begun < 2 * SOON_S


def test_an_object_that_grows_while_it_is_read_is_refused(
    stranger: str, monkeypatch: pytest.MonkeyPatch, growing: Growing
) -> None:
    far = FarTrace(Objects("s3://plain/run.trace"))
    pieces = iter([(b"abc", 6), (b"def", 9), (b"ghi", 12)])

    def read(_objects: Objects, path: str, start: int = 0, length: int | None = None) -> object_storage.Piece:
        data, size = next(pieces)
        return object_storage.Piece(data, size, "a")

    monkeypatch.setattr(Objects, "read", read)
    with pytest.raises(FormatError, match="has 9 bytes, and had 6 when it was begun"):
        list(far.pieces("artifacts/x"))
