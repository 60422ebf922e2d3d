"""Traces that are pushed to an S3 server, and what stands there afterwards, by the checker and object by object."""

from __future__ import annotations

import itertools
from pathlib import Path

import botocore.session
import pytest
from botocore.config import Config

from fgtrac.api.trace import open_for_verification
from fgtrac.store.object_storage import Objects
from fgtrac.verify.report import Report, Verdict
from s3_servers import SECRET, Server
from traces import Made, Writing, start_trace

BUCKET = "traces"
_numbers = itertools.count()


def new_place(server: Server, monkeypatch: pytest.MonkeyPatch, port: int | None = None) -> str:
    """A URL where nothing lies, in a bucket that is there; this process's environment names the server."""
    for name, value in server.environment(port).items():
        monkeypatch.setenv(name, value)
    client(server).create_bucket(Bucket=BUCKET)
    return f"s3://{BUCKET}/test-{next(_numbers)}/run.trace"


def client(server: Server) -> object:
    """botocore's own, for what no part of fgtrac should do."""
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
    who = {"aws_access_key_id": server.environment()["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": SECRET}
    session = botocore.session.Session()
    return session.create_client("s3", endpoint_url=server.url, region_name="us-east-1", config=config, **who)


class Growing:
    """A trace that goes on: `more` records uses and an artifact, and seals."""

    def __init__(self, folder: Path) -> None:
        self.made: Made
        self.writing: Writing
        self.made, self.writing = start_trace(folder, samples=20)
        self.path = self.made.trace.path
        self.key = self.made.signer.public_key.hex()

    def checkpoint(self, step: int) -> None:
        """A kept state, of which no file is there; in the log with the next seal."""
        self.writing.recorder.record("checkpoint", {"step": step, "kept": True, "rule": "all", "digest": bytes(32)})

    def more(self, uses: int, *, full: bool = True, artifact_bytes: int = 3000) -> int:
        """The head's size afterwards."""
        for number in range(uses):
            self.writing.use([number % 20, (number + 7) % 20])
        if artifact_bytes:
            self.writing.artifact(bytes([uses % 256]) * artifact_bytes)
        self.writing.recorder.rotate()
        return self.made.seal(full=full).size


def verify(path: str | Path, key: str) -> Report:
    """What `fgtrac verify` finds."""
    return open_for_verification(path, key=key).verify(engine="local:1")


def assert_holds(path: str | Path, key: str) -> int:
    """Every check holds; the size of the head that was checked."""
    opened = open_for_verification(path, key=key)
    report = opened.verify(engine="local:1")
    assert report.verdict is Verdict.HOLDS, [f"{f.check} {f.verdict}: {f.words}" for f in report.failures()]
    head = opened._directory.head()
    assert head is not None
    return head.size


def objects_at(url: str) -> dict[str, tuple[int, str]]:
    """What lies below a URL: path, size and ETag."""
    with Objects(url) as objects:
        return {path: (one.size, one.etag) for path, one in objects.listed().items()}
