"""Pushes through a proxy that refuses, waits, cuts and loses answers: what stands there afterwards holds, and what is
here too; the same push repeated publishes the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from far_traces import Growing, assert_holds, new_place, objects_at
from fgtrac.api.push import push_trace
from fgtrac.api.trace import open_for_verification
from fgtrac.errors import StorageError
from lying_proxy import Proxy, lying_proxy
from s3_servers import Server

PLACES = {"the probe": ".probe-", "a file": "/tile/", "the head": "run.trace/checkpoint"}  # in the path of a put
ARTIFACT_BYTES = 200_000  # a put of many packets, to be cut in its middle


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    return Growing(tmp_path)


@pytest.fixture
def proxy(s3: Server) -> Iterator[Proxy]:
    with lying_proxy(s3.port) as before:
        yield before


@pytest.fixture
def url(s3: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> str:
    return new_place(s3, monkeypatch, proxy.port)


@pytest.mark.parametrize(
    ("fault", "at"),
    [
        ("refused", "the probe"),
        *((f, at) for at in ("a file", "the head") for f in ("refused", "slow", "cut", "lost answer")),
    ],
)
def test_a_fault_leaves_the_old_head_or_the_new_one_and_a_repeated_push_the_new(
    fault: str, at: str, growing: Growing, proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing.more(60, artifact_bytes=ARTIFACT_BYTES)
    old = growing.made.trace.head()
    assert old is not None
    push_trace(growing.path, url)
    new = growing.more(220, artifact_bytes=ARTIFACT_BYTES)
    before = objects_at(url)
    monkeypatch.setenv("FGTRAC_S3_TIMEOUT_S", "0.5" if fault == "slow" else "20")
    proxy.begin(fault, PLACES[at])
    with pytest.raises(StorageError):
        push_trace(growing.path, url)
    proxy.heal()
    monkeypatch.setenv("FGTRAC_S3_TIMEOUT_S", "20")
    standing = assert_holds(url, growing.key)
    lost = fault == "lost answer" and at == "the head"  # the put itself was done
    assert standing in ((old.size, new) if lost else (old.size,))
    after = objects_at(url)
    assert {path: after.get(path) for path in before if path != "checkpoint"} == {
        path: one for path, one in before.items() if path != "checkpoint"
    }
    done = push_trace(growing.path, url)
    assert done.size == new  # and what is here was not changed: it holds there
    assert assert_holds(url, growing.key) == new
    assert not [path for path in objects_at(url) if ".probe" in path]


def test_an_answer_that_is_lost_once_is_no_conflict(growing: Growing, proxy: Proxy, url: str) -> None:
    growing.more(10)
    for at in ("a file", "the head"):  # the same put is tried again, and finds itself
        proxy.begin("lost answer", PLACES[at], times=1)
        push_trace(growing.path, url)
        assert assert_holds(url, growing.key) == growing.made.trace.head().size  # type: ignore[union-attr]
        growing.more(0, artifact_bytes=10)


def test_a_first_push_that_is_cut_publishes_nothing_and_verify_says_so(
    growing: Growing, proxy: Proxy, url: str
) -> None:
    growing.more(300)
    proxy.begin("cut", PLACES["the head"])
    with pytest.raises(StorageError):
        push_trace(growing.path, url)
    proxy.heal()
    assert "tile/entries/000" in objects_at(url)
    with pytest.raises(FileNotFoundError, match="nothing was published there"):
        open_for_verification(url, key=growing.key)
    sent = push_trace(growing.path, url)
    assert sent.sent == 0  # all but the head was there
    assert assert_holds(url, growing.key) == sent.size


def test_what_is_uploaded_and_not_published_is_passed_over_and_told(growing: Growing, proxy: Proxy, url: str) -> None:
    size = growing.more(300)
    push_trace(growing.path, url)
    growing.more(300)
    proxy.begin("refused", "/index/")
    with pytest.raises(StorageError):
        push_trace(growing.path, url)
    proxy.heal()
    report = open_for_verification(url, key=growing.key).verify(engine="local:1")
    assert assert_holds(url, growing.key) == size
    assert [note for note in report.notes if "were uploaded and are not published" in note]


def test_nobody_answering_in_the_middle_of_a_verification_is_no_verdict(
    growing: Growing, proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing.more(600)
    push_trace(growing.path, url)
    opened = open_for_verification(url, key=growing.key)
    monkeypatch.setattr(proxy, "target", 9)  # where nobody listens

    def cut(done: int, total: int) -> None:
        for connection in list(proxy.connections):
            connection.close()

    with pytest.raises(StorageError, match="did not answer"):
        opened.verify(progress=cut, engine="local:1")
