"""Tables are built in units: the same files on every engine; a worker or builder that is killed loses one unit."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import fgtrac
from fgtrac.engine.alone import Alone
from fgtrac.engine.opening import open_engine
from fgtrac.engine.units import Engine
from fgtrac.errors import EngineError, ProofError
from fgtrac.query import view_build, view_ranges, view_uses
from fgtrac.query.view_cache import views_folder
from fgtrac.query.view_schema import VIEWS
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from killed_view_workers import kill_a_worker_once
from traces import make_trace
from views_truth import tables_of


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_ranges, "RANGE_BYTES", 1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of four bundles, the last of them partial, whose roles change in between."""
    made = make_trace(tmp_path_factory.mktemp("long"), uses=800, seals=(300,))
    return made.trace.path


def folder_of(path: Path) -> Path:
    (found,) = views_folder(fgtrac.open(path).id).iterdir()
    return found


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def built(path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, engine: str) -> dict[str, str]:
    monkeypatch.setenv("FGTRAC_CACHE", str(cache))
    len(fgtrac.open(path).views(engine=engine).view("uses"))
    return digests(folder_of(path))


def test_every_engine_gives_the_same_files_and_rows(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (built(long, monkeypatch, tmp_path / name, name) for name in ("local:1", "local:2"))
    assert one == two
    assert len([name for name in one if name.startswith("uses-")]) == 4
    truth, trace = tables_of(long), fgtrac.open(long)
    for view in VIEWS:
        found = [{**row} for row in trace.views().view(view).to_dicts()]
        assert sorted(map(repr, found)) == sorted(repr({name: row[name] for name in found[0]}) for row in truth[view])
    assert [row["number"] for row in trace.sql("SELECT number FROM entries").rows] == list(range(trace.views().size))


class Stopped(Alone):
    """An engine whose cluster goes away after some units."""

    def __init__(self, after: int) -> None:
        self.done: list[int] = []
        self._after = after

    def results(self, work: Callable[[Any], Any], units: Any, **said: Any) -> Iterator[tuple[int, Any]]:
        for number, result in super().results(work, units, **said):
            if len(self.done) == self._after:
                raise EngineError("the cluster is gone")
            self.done.append(number)
            yield number, result


def build_in(path: Path, folder: Path, engine: Engine, memory_bytes: int = 1 << 30) -> Any:
    trace = fgtrac.open(path)
    return view_build.build_views(TraceDir(path), trace._seal, folder, engine, memory_bytes)


class Counted(Alone):
    """An engine of four workers that notes how many units it is given at a time."""

    workers = 4

    def __init__(self) -> None:
        self.given: list[int] = []

    def results(self, work: Callable[[Any], Any], units: Any, **said: Any) -> Iterator[tuple[int, Any]]:
        if work is view_ranges.build_range:
            self.given.append(len(units))
        return super().results(work, units, **said)


@pytest.mark.parametrize(("memory_bytes", "given"), [(1 << 20, [1, 1, 1, 1]), (3 << 28, [3, 1]), (1 << 31, [4])])
def test_less_memory_has_fewer_work_at_a_time_and_rows_wait_on_disk_with_the_same_files(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_bytes: int, given: list[int]
) -> None:
    monkeypatch.setattr(view_uses, "GROUP_ROWS", 16)  # row groups that fill up
    monkeypatch.setattr(view_uses, "BUCKET_SAMPLES", 2)  # in more than one bucket
    waited: list[Path] = []
    real = durable.write_at
    monkeypatch.setattr(durable, "write_at", lambda path, *said: waited.append(path) or real(path, *said))
    much, little, engine = tmp_path / "much", tmp_path / "little", Counted()
    for folder in (much, little):
        folder.mkdir()
    wanted = build_in(long, much, Alone())
    assert not waited
    assert build_in(long, little, engine, memory_bytes) == wanted
    assert digests(little) == digests(much)
    assert engine.given == given
    assert len(set(waited)) == (0 if memory_bytes == 1 << 31 else 4)
    groups = sum(pq.ParquetFile(path).num_row_groups for path in little.glob("uses-*.parquet"))
    assert groups > len(tables_of(long)["uses"]) / 16


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda folder: None,
    "a piece": lambda folder: flip(folder / "uses-1.parquet"),
    "a piece that is gone": lambda folder: (folder / "entries-1.parquet").unlink(),
    "what a unit says": lambda folder: flip(folder / "range-1.cbor"),
    "an empty saying": lambda folder: (folder / "range-1.cbor").write_bytes(b""),
    "another unit's saying": lambda folder: (folder / "range-1.cbor").write_bytes(
        (folder / "range-0.cbor").read_bytes()
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_build_goes_on_with_what_is_whole(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    wanted = build_in(long, whole, Alone())
    with pytest.raises(EngineError, match="the cluster is gone"):
        build_in(long, stopped, Stopped(after=2))
    DAMAGES[damage](stopped)
    hashed: list[int] = []
    real = view_ranges.read_bundle
    monkeypatch.setattr(
        view_ranges, "read_bundle", lambda trace, bundle, size: hashed.append(bundle) or real(trace, bundle, size)
    )
    assert build_in(long, stopped, Alone()) == wanted
    assert digests(stopped) == digests(whole)
    assert hashed == ([3] if damage == "nothing" else [1, 3])


KILLED = """
import os, sys, signal
from fgtrac.query import view_ranges
view_ranges.RANGE_BYTES = 1
real = view_ranges.read_bundle
def read(trace, bundle, size):
    if bundle == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(trace, bundle, size)
view_ranges.read_bundle = read
import fgtrac
len(fgtrac.open(sys.argv[1]).views(engine="local:1").view("uses"))
"""


def test_a_killed_builder_s_ranges_are_used_by_the_next_one(
    long: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(long)], check=False)
    assert done.returncode == -signal.SIGKILL
    left = folder_of(long)
    assert left.name.startswith("building-")
    assert left.stat().st_mode & 0o777 == 0o700
    hashed: list[int] = []
    real = view_ranges.read_bundle
    monkeypatch.setattr(
        view_ranges, "read_bundle", lambda trace, bundle, size: hashed.append(bundle) or real(trace, bundle, size)
    )
    views = fgtrac.open(long).views(engine="local:1")
    assert len(views.view("uses")) == len(tables_of(long)["uses"])
    assert hashed == [2, 3]
    assert f"building-{folder_of(long).name}" == left.name
    assert not left.exists()


def test_a_worker_that_is_killed_is_replaced(long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, lost = tmp_path / "whole", tmp_path / "lost"
    for folder in (whole, lost):
        folder.mkdir()
    wanted = build_in(long, whole, Alone())
    monkeypatch.setattr(view_build, "build_range", kill_a_worker_once)
    with open_engine("local:2") as engine:
        assert build_in(long, lost, engine) == wanted
    assert digests(lost) == digests(whole)


def test_a_builder_beside_another_builds_in_a_folder_of_its_own(long: Path, cache: Path) -> None:
    slow = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", slow, str(long)], stdin=subprocess.PIPE) as other:
        assert other.stdin is not None
        top, until = views_folder(fgtrac.open(long).id), time.monotonic() + 60
        while not list(top.glob("building-*/range-1.cbor")) and time.monotonic() < until:
            time.sleep(0.05)
        rows = len(fgtrac.open(long).views(engine="local:1").view("uses"))
        assert [path.name for path in top.iterdir() if path.name.startswith("building-")]  # the other's
        other.stdin.close()
        assert other.wait(60) == 0
    assert rows == len(tables_of(long)["uses"])
    assert len([path for path in top.iterdir() if not path.name.startswith("building-")]) == 1


class Unseen(Alone):
    """Workers that do not see a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check_shared(self, folder: Path) -> None:
        if folder == self._folder:
            raise EngineError(f"a node does not see {folder}")

    def results(self, *_: Any, **__: Any) -> Any:
        pytest.fail("a unit began")


def test_a_node_that_does_not_see_the_trace_is_refused_before_any_unit_begins(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "views").mkdir()
    monkeypatch.chdir(long.parent)
    with pytest.raises(EngineError, match=f"does not see {long.resolve()}"):
        build_in(Path(long.name), tmp_path / "views", Unseen(long.resolve()))


def test_a_range_that_is_not_what_was_sealed_gives_no_table_on_any_engine(tmp_path: Path, cache: Path) -> None:
    path = make_trace(tmp_path / "t", uses=600, seals=(200,)).trace.path
    bundle = path / "tile/entries/001"
    data = bundle.read_bytes()
    at = data.rindex(b"dtime") + 8
    bundle.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    for engine in ("local:1", "local:2"):
        with pytest.raises(ProofError, match=r"do not lead to the root|is not the one that was sealed"):
            len(fgtrac.open(path).views(engine=engine).view("uses"))
        assert not list(cache.rglob("*.parquet"))
