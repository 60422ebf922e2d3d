"""What names a trace on object storage, and what is told where nobody does as asked. No server
is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgtrac.commit.publishing import stale_files
from fgtrac.errors import StorageError
from fgtrac.store.far_trace import _is_beyond
from fgtrac.store.object_answers import NoBucketError, Overtaken, told
from fgtrac.store.object_storage import FarPath, is_url, parse_url
from fgtrac.store.trace_dir import TraceDir


def test_a_url_and_a_path_of_it_mean_the_same() -> None:
    url = "s3://bucket/some/where/run.trace"
    assert parse_url(url) == parse_url(Path(url)) == parse_url(FarPath(url)) == ("bucket", "some/where/run.trace")
    assert str(FarPath(url)) == str(FarPath(Path(url))) == url
    assert is_url(url)
    assert not is_url("runs/run.trace")


@pytest.mark.parametrize(
    "url",
    ["s3://bucket", "s3://bucket/", "s3://bucket/run", "s3://b/run.trace", "s3://UPPER/run.trace", "s3://key:secret@bucket/a.trace",
     "s3://bucket/a//b.trace", "s3://bucket/../b.trace", "s3://bucket/a b.trace", "https://bucket/b.trace", ""],
)  # fmt: skip
def test_what_is_no_such_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"s3://BUCKET/PREFIX/NAME.trace; this names none") as refused:
        parse_url(url)
    assert "secret" not in str(refused.value)


def test_what_writes_refuses_a_trace_far_away() -> None:
    with pytest.raises(ValueError, match=r"only read.*fgtrac push"):
        TraceDir.open(Path("s3://bucket/run.trace"))


class Answered(Exception):
    """As botocore raises an answer."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("code", "status", "kind", "words"),
    [
        ("PreconditionFailed", 412, Overtaken, "by somebody else"),
        ("NoSuchBucket", 404, NoBucketError, "make it, or name another"),
        ("NoSuchKey", 404, FileNotFoundError, "no object s3://bucket/key"),
        ("AccessDenied", 403, StorageError, "s3:PutObject"),
        ("ExpiredToken", 400, StorageError, "refuses the credentials"),
        ("PermanentRedirect", 301, StorageError, "set AWS_REGION"),
        ("NotImplemented", 501, StorageError, "cannot do what a push needs"),
        ("SlowDown", 503, StorageError, "try again"),
    ],
)
def test_answers_are_told_with_what_to_do(code: str, status: int, kind: type[Exception], words: str) -> None:
    error = told(Answered(code, status), "put_object", "bucket", "key", "http://here")
    assert type(error) is kind
    assert words in str(error)


def test_stale_is_what_only_older_heads_needed() -> None:
    there = ["checkpoint", "tile/0/000.p/7", "tile/0/000.p/9", "tile/0/000", "tile/0/001.p/3", "journal/7.seal",
             "journal/9.seal",
             "journal/12.seal", "index/7/keys.npy", "index/7/checkpoint", "index/9/keys.npy", "index/12/keys.npy",
             "artifacts/model", "receipts/7/witness", "notes.txt"]  # fmt: skip
    wanted = ["tile/0/000.p/9", "journal/9.seal", "index/9/keys.npy", "index/9/checkpoint", "index/7/checkpoint"]
    assert stale_files(there, wanted, 9) == ["index/7/keys.npy", "journal/7.seal", "tile/0/000.p/7"]
    beyond = [path for path in there if _is_beyond(path, 9)]
    assert beyond == ["tile/0/000", "tile/0/001.p/3", "journal/12.seal", "index/12/keys.npy"]
