"""Pushes behind the seals of a run: where they go, beside what they are done, and what is told where one fails. What a
push itself does is tested where there is a server."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fgtrac.api import push_behind
from fgtrac.api.push_behind import PushBehind, pushed_to
from fgtrac.api.run import start_run
from fgtrac.errors import StorageError
from fgtrac.store.file_digests import FileDigests
from fgtrac.store.trace_dir import TraceDir


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A folder of that name."""
    (tmp_path / "run.trace" / "journal").mkdir(parents=True)
    return tmp_path / "run.trace"


def test_a_place_that_is_none_is_told_with_the_setting_and_a_folders_own_name_is_found(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trace)
    assert pushed_to(Path(), {"FGTRAC_PUSH": "s3://bucket/runs/"}) == "s3://bucket/runs/run.trace"
    assert pushed_to(Path(), {}) is None
    for place in ("/somewhere", "s3://AK:secret@bucket/runs"):
        with pytest.raises(ValueError, match=r"FGTRAC_PUSH names no place on object storage for run\.trace") as told:
            pushed_to(trace, {"FGTRAC_PUSH": place})
        assert "secret" not in str(told.value)


@pytest.mark.parametrize("error", [StorageError("nobody answers"), KeyError("ETag"), MemoryError()])
def test_a_push_that_fails_in_any_way_leaves_the_run_going(
    error: Exception, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_given: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(push_behind, "push_trace", fails)
    monkeypatch.setenv("FGTRAC_PUSH", "s3://bucket/runs")
    words = str(error) or "MemoryError"
    later = f"later: fgtrac push {trace} s3://bucket/runs/run.trace"
    with pytest.warns(RuntimeWarning, match=f"sealed and not pushed, as FGTRAC_PUSH asks: {words}; {later}"):
        PushBehind(trace)()


def test_seals_go_on_while_a_push_waits_for_a_server_and_the_last_head_is_pushed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answers, at_work = threading.Event(), threading.Event(), threading.Lock()
    sizes: list[int] = []
    known: set[int] = set()

    def pushes(path: Path, url: str, *, digests: FileDigests) -> None:
        assert url == "s3://bucket/runs/run.trace"
        assert at_work.acquire(blocking=False)
        known.add(id(digests))
        sizes.append(size_of(path))
        begun.set()
        assert answers.wait(60)
        at_work.release()

    def size_of(path: Path) -> int:
        head = TraceDir.open(path).head()
        assert head is not None
        return head.size

    monkeypatch.setattr(push_behind, "push_trace", pushes)
    monkeypatch.setenv("FGTRAC_PUSH", "s3://bucket/runs")
    path = tmp_path / "run.trace"
    with start_run(path, key=tmp_path / "key.pem", flush_interval_s=0, seal_interval_s=0) as run:
        for step in range(3):
            run.log(step, loss=0.5)
            run._sealer.ask()
            run._sealer.finish()  # a seal, and no push
            assert begun.wait(60)
            assert sizes == [sizes[0]]
        assert size_of(path) == sizes[0] + 2
        answers.set()
    assert sizes[-1] == size_of(path)
    assert len(sizes) <= 3  # what was asked for meanwhile is one push
    assert len(known) == 1
