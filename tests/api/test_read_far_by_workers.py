"""A trace far away whose index does not fit in memory: rebuilt in scratch files, with the report of one in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fgtrac.api import read_by_workers
from fgtrac.api.audit import audit_trace
from fgtrac.api.read_by_workers import ByWorkers
from fgtrac.engine.alone import Alone
from fgtrac.errors import StorageError
from fgtrac.store import index_build, index_units
from fgtrac.store.far_trace import FarTrace
from fgtrac.verify import reading
from fgtrac.verify.report import Report, Verdict
from findings import verdict_of, words_of
from folder_objects import far
from lying_logs import FIRST_BUNDLE, LIES, on_disk
from signed import VERIFIER


class Watched(Alone):
    """One worker, and what it was given to do; before one kind of work something happens."""

    def __init__(self, what: str = "", do: Any = None) -> None:
        self.done: list[str] = []
        self._what, self._do = what, do

    def results(self, work: Any, units: Sequence[Any], *, what: str, progress: Any = None) -> Iterator[Any]:
        self.done.append(what)
        if what == self._what:
            self._do()
        yield from super().results(work, units, what=what, progress=progress)


class Ray(Watched):
    """A cluster, whose nodes may not reach what this process does."""

    name, workers = "ray", 2

    def results(self, *_: Any, **__: Any) -> Iterator[Any]:
        pytest.fail("a node was given a unit")


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> list[FarTrace]:
    """The traces that units open. Every bundle is a range, and no index fits in memory."""
    monkeypatch.setattr(reading, "LEAST_BUNDLES", 1)
    monkeypatch.setattr(read_by_workers, "POSTING_BYTES", 1 << 40)
    monkeypatch.setattr(index_build, "FEWEST", 8)
    return []


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def by_scratch(trace: FarTrace, folder: Path, engine: Any, scratch: Path, units: list[FarTrace]) -> Report:
    """The report, with units that open the trace of a folder."""

    def opened(path: str) -> FarTrace:
        assert path == "s3://bucket/run.trace"
        units.append(far(folder))
        return units[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(index_units, "trace_of_unit", opened)
        patched.setattr(FarTrace, "plain", lambda _trace, path: pytest.fail(f"{path} was copied"))
        return audit_trace(trace, VERIFIER, reading=lambda files: ByWorkers(files, trace, engine, 1, scratch))


NAMES = ["none", "another root", "another root of an older seal", "a bit of the values", "a bundle is lost", "no entry"]


@pytest.mark.parametrize("name", NAMES)
def test_the_report_is_that_of_an_index_in_memory(
    name: str, tmp_path: Path, scratch: Path, units: list[FarTrace]
) -> None:
    folder = on_disk(tmp_path, LIES[name]()).path
    expected = audit_trace(far(folder), VERIFIER)
    assert expected.verdict is (Verdict.HOLDS if name == "none" else Verdict.REFUTED)
    for engine in (Watched(), Ray()):
        assert by_scratch(far(folder), folder, engine, scratch, units) == expected
        assert not list(scratch.iterdir())


def test_a_bundle_is_asked_for_once_by_each_that_reads_the_log(
    tmp_path: Path, scratch: Path, units: list[FarTrace]
) -> None:
    folder = on_disk(tmp_path, LIES["none"]()).path
    trace, engine = far(folder), Watched()
    assert by_scratch(trace, folder, engine, scratch, units).verdict is Verdict.HOLDS
    assert engine.done == ["index: map", "index: contents", "index: reduce"] * 3
    assert {times for path, times in trace.objects.asked.items() if path.startswith("tile/entries/")} == {1}
    assert len(units) == 3  # one for each full seal
    for unit in units:
        assert unit.objects.asked.keys() <= {path for path in trace.objects.asked if path.startswith("tile/entries/")}
        assert set(unit.objects.asked.values()) == {1}


def test_what_goes_or_is_silent_meanwhile_is_told_as_of_the_trace(
    tmp_path: Path, scratch: Path, units: list[FarTrace]
) -> None:
    folder = on_disk(tmp_path, LIES["none"]()).path
    trace = far(folder)
    trace._cache._limit = 0  # so that it is asked for again

    def silent() -> None:
        trace.objects.answers = False

    with pytest.raises(StorageError, match="nobody answers"):
        by_scratch(trace, folder, Watched("index: contents", silent), scratch, units)
    assert not list(scratch.iterdir())
    gone = Watched("index: map", (folder / FIRST_BUNDLE).unlink)
    report = by_scratch(far(folder), folder, gone, scratch, units)
    assert verdict_of(report, "index") is Verdict.CANNOT_TELL
    assert words_of(report, "index").startswith("files of the trace went while it was verified")
    assert f"there is no object s3://bucket/run.trace/{FIRST_BUNDLE}" in words_of(report, "index")
