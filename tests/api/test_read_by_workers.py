"""A trace that workers read has the report of one that is read in one process, whatever is wrong with it or lost."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import engine_units
from fgtrac.api import read_by_workers
from fgtrac.api.audit import audit_trace
from fgtrac.api.read_by_workers import ByWorkers
from fgtrac.api.trace import open_for_verification
from fgtrac.engine.opening import open_engine
from fgtrac.engine.units import Engine
from fgtrac.errors import EngineError
from fgtrac.store import durable, index_build
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify import reading
from fgtrac.verify.report import Report, Verdict
from findings import verdict_of, words_of
from lying_logs import FIRST_BUNDLE, LAST_BUNDLE, LIES, events, metrics, on_disk
from signed import VERIFIER, Files, put_files, use, write


@pytest.fixture(autouse=True)
def all_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bundle is a range, workers read however few there are, and no index fits in memory."""
    monkeypatch.setattr(reading, "LEAST_BUNDLES", 1)
    monkeypatch.setattr(read_by_workers, "FEW_BYTES", 0)
    monkeypatch.setattr(read_by_workers, "POSTING_BYTES", 1 << 40)
    monkeypatch.setattr(index_build, "FEWEST", 8)


@pytest.fixture(scope="module")
def pool() -> Iterator[Engine]:
    with open_engine("local:2") as engine:
        yield engine


@pytest.fixture
def alone() -> Iterator[Engine]:
    with open_engine("local:1") as engine:
        yield engine


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def by_workers(trace: TraceDir, engine: Any, scratch: Path, memory: int = 1) -> Report:
    return audit_trace(trace, VERIFIER, reading=lambda files: ByWorkers(files, trace, engine, memory, scratch))


@pytest.mark.parametrize("name", LIES)
def test_every_engine_gives_the_same_report(
    name: str, pool: Engine, alone: Engine, tmp_path: Path, scratch: Path
) -> None:
    trace = on_disk(tmp_path, LIES[name]())
    expected = audit_trace(trace, VERIFIER)
    assert expected.verdict is (Verdict.HOLDS if name == "none" else Verdict.REFUTED)
    for engine in (pool, alone):
        assert by_workers(trace, engine, scratch) == expected
        assert not list(scratch.iterdir())


class Watched:
    """An engine beside which something happens, once, at the first result of one kind of work (or before it)."""

    def __init__(self, engine: Engine, what: str, do: Callable[[], None], *, before: bool = False) -> None:
        self.name, self.workers = engine.name, engine.workers
        self._engine, self._what, self._do, self._before = engine, what, do, before
        self.units: list[Any] = []

    def results(self, work: Any, units: Sequence[Any], *, what: str, progress: Any = None) -> Iterator[Any]:
        self.units += units
        is_meant = what == self._what
        if is_meant and self._before:
            self._do()
        for found in self._engine.results(work, units, what=what, progress=progress):
            if is_meant and not self._before:
                is_meant = False
                self._do()
            yield found

    def check_shared(self, folder: Path) -> None:
        self._engine.check_shared(folder)


WORK = ("hashing the log", "reading the log", "index: map", "index: reduce")


@pytest.mark.parametrize("what", WORK)
def test_a_killed_worker_changes_nothing(what: str, pool: Engine, tmp_path: Path, scratch: Path) -> None:
    trace, killed = on_disk(tmp_path, LIES["none"]()), list[int]()
    list(pool.results(engine_units.process, engine_units.units(4, tmp_path), what="begin"))  # all workers are there

    def kill() -> None:
        for process in () if killed else multiprocessing.active_children():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)

    assert by_workers(trace, Watched(pool, what, kill), scratch) == audit_trace(trace, VERIFIER)
    assert killed


@pytest.mark.parametrize("what", WORK)
def test_lost_workers_say_nothing_about_the_trace(what: str, alone: Engine, tmp_path: Path, scratch: Path) -> None:
    trace = on_disk(tmp_path, LIES["none"]())
    pair = Watched(alone, what, lose)
    pair.workers = 2  # so that ranges are given to it
    with pytest.raises(EngineError, match="it went away"):
        by_workers(trace, pair, scratch)


def lose() -> None:
    raise EngineError("it went away")


def stopped(folder: Path, alone: Engine, scratch: Path) -> tuple[TraceDir, Path]:
    """A trace whose verification was stopped as it put the parts of the index together, and the folder it left."""
    trace = on_disk(folder, LIES["none"]())
    with pytest.raises(EngineError):
        by_workers(trace, Watched(alone, "index: reduce", lose), scratch)
    (left,) = scratch.iterdir()
    return trace, left


@pytest.mark.parametrize("is_damaged", [False, True])
def test_an_index_goes_on_from_what_was_done_and_is_whole(
    is_damaged: bool, alone: Engine, tmp_path: Path, scratch: Path
) -> None:
    trace, folder = stopped(tmp_path, alone, scratch)
    assert folder.stat().st_mode & 0o777 == 0o700
    runs = sorted(folder.glob("index/*/map-*"))
    if is_damaged:
        for path in runs:
            data = bytearray(path.read_bytes())
            data[-5] ^= 1
            path.write_bytes(data)
    watched = Watched(alone, "", lose)
    assert by_workers(trace, watched, scratch) == audit_trace(trace, VERIFIER)
    known = [unit for unit in watched.units if getattr(unit, "known", b"") and "map-" in unit.out]
    assert [Path(unit.out).name for unit in known] == [path.name for path in runs]
    assert not list(scratch.iterdir())


def test_an_entry_that_is_another_when_it_is_read_again_is_refused(
    alone: Engine, tmp_path: Path, scratch: Path
) -> None:
    trace, other = on_disk(tmp_path, LIES["none"]()), write(*events(entry_21=use(20, 3, 4)))
    report = by_workers(trace, Watched(alone, "index: map", lambda: put(trace, other), before=True), scratch)
    assert verdict_of(report, "index") is Verdict.REFUTED
    assert "entry 21 changed while it was read" in words_of(report, "index")


def put(trace: TraceDir, files: Files) -> None:
    (trace.path / FIRST_BUNDLE).write_bytes(files[FIRST_BUNDLE])


NUMBERS = (errno.ENOSPC, errno.EFBIG, errno.EMFILE, errno.EACCES, errno.EIO)


@pytest.mark.parametrize("error", [*(OSError(n, os.strerror(n)) for n in NUMBERS), MemoryError("no room")], ids=str)
def test_what_scratch_files_meet_says_nothing_about_the_trace(
    error: Exception, alone: Engine, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = on_disk(tmp_path, LIES["none"]())

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(durable, "write_at", fail)
    report = by_workers(trace, alone, scratch)
    assert verdict_of(report, "index") is Verdict.CANNOT_TELL
    assert str(error) in words_of(report, "index")
    assert "--scratch" in words_of(report, "index")
    assert not list(scratch.iterdir())


def test_a_limit_of_open_files_says_nothing_about_the_trace(alone: Engine, tmp_path: Path, scratch: Path) -> None:
    trace, before = on_disk(tmp_path, LIES["none"]()), resource.getrlimit(resource.RLIMIT_NOFILE)
    held = list[int]()

    def limit() -> None:
        least = os.dup(0)
        held.append(least)
        resource.setrlimit(resource.RLIMIT_NOFILE, (least + 1, before[1]))
        while True:  # those below it that were closed meanwhile
            try:
                held.append(os.dup(0))
            except OSError:
                return

    def free() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        while held:
            os.close(held.pop())

    class Freed(Watched):
        def results(self, work: Any, units: Sequence[Any], *, what: str, progress: Any = None) -> Iterator[Any]:
            try:
                yield from super().results(work, units, what=what, progress=progress)
            except OSError:
                free()
                raise

    try:
        report = by_workers(trace, Freed(alone, "index: reduce", limit, before=True), scratch)
    finally:
        free()
    assert verdict_of(report, "index") is Verdict.CANNOT_TELL
    assert "Too many open files" in words_of(report, "index")


def no_folder(path: Path) -> None:
    """Nothing is there."""


def a_file(path: Path) -> None:
    path.write_bytes(b"")


def no_disk(path: Path) -> None:
    path.symlink_to("/proc")


@pytest.mark.parametrize("make", [no_folder, a_file, no_disk])
def test_a_scratch_folder_that_is_none_is_refused_before_anything_is_read(
    make: Callable[[Path], None], tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, bad = on_disk(tmp_path, LIES["none"]()), scratch / "bad"
    make(bad)
    opened = open_for_verification(trace.path)
    with pytest.raises((FileNotFoundError, ValueError), match=str(bad)):
        opened.verify(VERIFIER.public_key.hex(), scratch=bad, progress=pytest.fail)
    if make is not no_folder:  # and the user's cache, which nobody names and not every trace needs
        monkeypatch.setenv("FGTRAC_CACHE", str(bad))
        with open_engine("local:1") as engine:
            report = audit_trace(trace, VERIFIER, reading=lambda files: ByWorkers(files, trace, engine, 1))
        assert verdict_of(report, "index") is Verdict.CANNOT_TELL
        assert "FGTRAC_CACHE" in words_of(report, "index")
        assert Verdict.REFUTED not in [finding.verdict for finding in report.findings]


@pytest.mark.parametrize("is_link", [False, True])
def test_a_folder_that_somebody_made_first_is_left_alone(
    is_link: bool, alone: Engine, tmp_path: Path, scratch: Path
) -> None:
    trace, folder = stopped(tmp_path, alone, scratch)
    shutil.rmtree(folder)
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    (theirs / "mine").write_bytes(b"mine")
    folder.symlink_to(theirs) if is_link else theirs.rename(folder)
    assert by_workers(trace, alone, scratch) == audit_trace(trace, VERIFIER)
    assert list(scratch.iterdir()) == [folder]
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_leftovers_go_after_a_day_and_folders_of_the_user_never(alone: Engine, tmp_path: Path, scratch: Path) -> None:
    trace, left = stopped(tmp_path, alone, scratch)
    left.rename(scratch / f"verify-{'0' * 32}")  # of another trace
    users = {f"verify-{'1' * 32}", "verify-2025-results"}
    (scratch / "verify-2025-results").mkdir()
    (scratch / "verify-2025-results" / "fgtrac-scratch").write_bytes(b"mine")
    (scratch / f"verify-{'1' * 32}").mkdir()
    for folder in scratch.iterdir():
        (folder / "data.txt").write_text("precious")
        os.utime(folder, (1, 1))
    assert by_workers(trace, alone, scratch) == audit_trace(trace, VERIFIER)
    assert {folder.name for folder in scratch.iterdir()} == users
    assert {folder.joinpath("data.txt").read_text() for folder in scratch.iterdir()} == {"precious"}


def test_a_bundle_that_goes_while_the_index_is_rebuilt_is_named_as_gone(
    alone: Engine, tmp_path: Path, scratch: Path
) -> None:
    trace = on_disk(tmp_path, LIES["none"]())
    report = by_workers(trace, Watched(alone, "index: map", (trace.path / FIRST_BUNDLE).unlink, before=True), scratch)
    assert verdict_of(report, "index") is Verdict.CANNOT_TELL
    assert words_of(report, "index").startswith("files of the trace went while it was verified; verify again (")
    assert FIRST_BUNDLE in words_of(report, "index")


@pytest.mark.parametrize("what", ["index: map", "index: reduce"])
def test_a_trace_that_is_sealed_while_its_index_is_rebuilt_is_not_refuted(
    what: str, alone: Engine, tmp_path: Path, scratch: Path
) -> None:
    trace = on_disk(tmp_path, LIES["none"]())

    def seal_again() -> None:
        put_files(trace.path, write(*events(), metrics()))
        (trace.path / LAST_BUNDLE).unlink()

    report = by_workers(trace, Watched(alone, what, seal_again, before=True), scratch)
    assert Verdict.REFUTED not in [finding.verdict for finding in report.findings]
    assert any(f.words.startswith("the trace was sealed while it was verified") for f in report.findings)
    assert LAST_BUNDLE in " ".join(finding.words for finding in report.failures())
    assert not list(scratch.iterdir())


class Elsewhere:
    """Workers of another machine, where something else lies at the trace's path."""

    name, workers = "ray", 2

    def __init__(self, here: Path, there: Path) -> None:
        self._here, self._there = str(here), str(there)

    def results(self, work: Any, units: Sequence[Any], *, what: str, progress: Any = None) -> Iterator[Any]:
        for number, unit in enumerate(units):
            has_trace = getattr(unit, "trace", None) == self._here
            assert has_trace or not hasattr(unit, "trace")
            yield number, work(replace(unit, trace=self._there) if has_trace else unit)

    def check_shared(self, folder: Path) -> None:
        assert folder.is_absolute()


@pytest.mark.parametrize("name", ["a bit of the first bundle", "a bundle is lost", "a bundle is cut", "no entry"])
@pytest.mark.parametrize("is_sound_here", [False, True])
def test_a_report_is_about_the_trace_that_lies_here_whatever_workers_see(
    is_sound_here: bool, name: str, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, other = on_disk(tmp_path / "a", LIES["none"]()), on_disk(tmp_path / "b", LIES[name]())
    here, there = (sound, other) if is_sound_here else (other, sound)
    monkeypatch.chdir(here.path.parent)  # where no worker of another machine is
    trace = TraceDir(Path("run.trace"))
    report = by_workers(trace, Elsewhere(here.path, there.path), Path("../scratch"))
    assert report == audit_trace(trace, VERIFIER)
    assert report.verdict is (Verdict.HOLDS if is_sound_here else Verdict.REFUTED)
    assert not list(scratch.iterdir())
