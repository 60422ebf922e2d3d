"""The cache of tables: built again where it is damaged or may be another's, one seal at a time, the user's alone."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest

import fgtrac
from erasable import ANN, KEYS, files_with, write_small
from fgtrac.api.trace import Trace
from fgtrac.query import view_build, views
from fgtrac.query.view_cache import MANIFEST, cache_folder, forget_views, views_folder
from fgtrac.store.durable import FolderHold
from traces import make_trace
from views_logs import everything_on_disk

UNDAMAGED = "SELECT count(*) AS n, sum(sample) AS s FROM uses"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that views were built into."""
    built: list[Path] = []

    def build(trace, seal, folder, engine, memory_bytes, progress=None):
        built.append(folder)
        return view_build.build_views(trace, seal, folder, engine, memory_bytes, progress)

    monkeypatch.setattr(views, "build_views", build)
    return built


def folder_of(trace: Trace) -> Path:
    (found,) = views_folder(trace.id).iterdir()
    return found


def test_tables_are_built_once_for_a_seal(tmp_path: Path, cache: Path, builds: list[Path]):
    path = make_trace(tmp_path).trace.path
    said = [fgtrac.open(path).sql(UNDAMAGED).rows for _ in range(3)]
    assert said[0] == said[1] == said[2]
    assert len(builds) == 1


def test_only_the_user_may_read_them_and_the_trace_has_none(tmp_path: Path, cache: Path):
    trace = fgtrac.open(make_trace(tmp_path).trace.path)
    before = trace._directory.names()
    len(trace.uses())
    assert trace._directory.names() == before
    folder = folder_of(trace)
    assert folder.name.startswith(f"{trace.views().size}-")
    for one in (folder, folder.parent):
        assert stat.S_IMODE(one.stat().st_mode) == 0o700


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def manifest_with(**said: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        old = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**old, **said}))

    return change


def without(folder: Path, field: str) -> None:
    said = json.loads((folder / MANIFEST).read_text())
    for pieces in said["files"].values():
        del pieces[0][field]
    (folder / MANIFEST).write_text(json.dumps(said))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda folder: flip(folder / "uses-0.parquet"),
    "a cut file": lambda folder: (folder / "uses-0.parquet").write_bytes((folder / "uses-0.parquet").read_bytes()[:-9]),
    "an empty file": lambda folder: (folder / "uses-0.parquet").write_bytes(b""),
    "a missing file": lambda folder: (folder / "uses-0.parquet").unlink(),
    "another view's file": lambda folder: shutil.copy(folder / "roles-0.parquet", folder / "uses-0.parquet"),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "half a manifest": lambda folder: (folder / MANIFEST).write_text("{"),
    "a manifest of numbers": lambda folder: (folder / MANIFEST).write_text("[1]"),
    "a foreign manifest": manifest_with(head={"origin": "fgtrac/other", "size": 1, "root": "", "format": "v0"}),
    "a manifest without files": manifest_with(files={}),
    "a manifest without digests": lambda folder: without(folder, "sha256"),
    "a manifest without rows": lambda folder: without(folder, "rows"),
    "a manifest of brackets": lambda folder: (folder / MANIFEST).write_text("[" * 60_000),
    "a manifest without end": lambda folder: (folder / MANIFEST).write_text(" " * (1 << 17) + "{}"),
    "no text": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\0"),
    "a flipped bit in samples": lambda folder: flip(folder / "samples-0.parquet"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_built_again(tmp_path: Path, cache: Path, builds: list[Path], damage: str):
    path = make_trace(tmp_path).trace.path
    first = fgtrac.open(path)
    wanted = first.sql(UNDAMAGED).rows
    DAMAGES[damage](folder_of(first))
    again = fgtrac.open(path)
    assert again.sql(UNDAMAGED).rows == wanted
    assert len(builds) == 2
    assert len(again.uses().to_arrow()) == wanted[0]["n"]
    assert len(builds) == 2


@pytest.mark.parametrize("damage", ["a flipped bit", "a missing file"])
def test_what_is_damaged_behind_an_open_trace_is_built_again(
    tmp_path: Path, cache: Path, builds: list[Path], damage: str
):
    trace = fgtrac.open(make_trace(tmp_path).trace.path)
    wanted = trace.sql(UNDAMAGED).rows
    DAMAGES[damage](folder_of(trace))
    assert trace.sql(UNDAMAGED).rows == wanted
    assert len(trace.uses().to_arrow()) == wanted[0]["n"]
    assert len(builds) == 2


def test_what_is_damaged_between_the_look_and_the_reading_is_built_again(
    tmp_path: Path, cache: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
):
    path = make_trace(tmp_path).trace.path
    wanted = fgtrac.open(path).sql(UNDAMAGED).rows
    trace = fgtrac.open(path)
    damage, real = [DAMAGES["an empty file"]], views.Database

    def database(files, tables, **said):
        if damage:
            damage.pop()(folder_of(trace))
        return real(files, tables, **said)

    monkeypatch.setattr(views, "Database", database)
    assert trace.sql(UNDAMAGED).rows == wanted
    assert len(builds) == 2


def test_a_second_seal_replaces_the_first_unless_it_is_being_read(tmp_path: Path, cache: Path):
    made = make_trace(tmp_path, uses=12, seals=(5,), sealed=False)
    reader = fgtrac.open(made.trace.path)
    seen = reader.sql(UNDAMAGED).rows
    old = folder_of(reader)
    made.seal()
    newer = fgtrac.open(made.trace.path)
    assert newer.sql(UNDAMAGED).rows != seen
    assert old.is_dir()  # somebody reads it
    assert reader.sql(UNDAMAGED).rows == seen
    reader.views()._cached.close()
    fgtrac.open(made.trace.path).sql(UNDAMAGED)
    assert [path.name.partition("-")[0] for path in views_folder(reader.id).iterdir()] == [str(newer.views().size)]


def test_what_a_killed_builder_left_is_removed_and_what_another_builds_is_not(tmp_path: Path, cache: Path):
    trace = fgtrac.open(make_trace(tmp_path).trace.path)
    left, held = (views_folder(trace.id) / f"building-{word}" for word in ("left", "held"))
    for folder in (left, held):
        folder.mkdir(parents=True)
        (folder / "uses-0.parquet").write_bytes(b"half")
    hold = FolderHold(held, alone=True)
    len(trace.uses())
    assert not left.exists()
    assert held.exists()
    hold.close()


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    trace = fgtrac.open(make_trace(tmp_path).trace.path)

    def fails(trace, seal, folder, engine, memory_bytes, progress=None):
        (folder / "uses-0.parquet").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(views, "build_views", fails)
    with pytest.raises(OSError, match="No space left"):
        len(trace.uses())
    assert not list(views_folder(trace.id).iterdir())


ASK = f"import sys, fgtrac; print(fgtrac.open(sys.argv[1]).sql({UNDAMAGED!r}).rows)"


def test_several_processes_that_build_at_once_say_the_same(tmp_path: Path, cache: Path):
    path = everything_on_disk(tmp_path)
    command = [sys.executable, "-c", ASK, str(path)]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=60)[0] for process in asking]
    assert [process.returncode for process in asking] == [0, 0, 0]
    assert answers == [f"{fgtrac.open(path).sql(UNDAMAGED).rows}\n"] * 3
    assert len(list(views_folder(fgtrac.open(path).id).iterdir())) == 1


def test_names_of_the_vault_are_in_answers_and_never_in_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    trace = fgtrac.open(write_small(tmp_path))
    found = trace.sql("SELECT name, subject_name, uses FROM names JOIN samples USING (id) ORDER BY name").rows
    assert [row["name"] for row in found] == sorted(f'people:key:"{key}"' for key in KEYS[:6])
    assert {row["subject_name"] for row in found} == {ANN, "bob"}
    assert trace.sql("SELECT count(*) AS n FROM uses").rows == [{"n": 4}]
    assert not files_with(cache, ANN.encode(), *(key.encode() for key in KEYS))
    with pytest.raises(ValueError, match="names"):
        trace.sql("SELECT * FROM uses JOIN nams USING (id)")


def test_an_erasure_removes_the_tables(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    path = write_small(tmp_path)
    trace = fgtrac.open(path)
    len(trace.uses())
    fgtrac.erase(path, subject=ANN)
    assert not list(cache.rglob("*.parquet"))
    forget_views(trace.id)  # once more: nothing there


SORT = "SELECT range, repeat('x', 40) AS s FROM range(1_000_000) ORDER BY hash(range)"


def test_what_a_sort_needs_beyond_its_memory_lies_in_the_cache_while_it_runs_and_no_name_does(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    trace = fgtrac.open(write_small(tmp_path))
    trace.views(memory_bytes=48 << 20)
    before = folder_of_views(trace)
    batches = trace.sql(SORT).to_batches()
    seen = len(next(iter(batches)))
    assert len(folder_of_views(trace) - before) == 1
    assert seen + sum(len(batch) for batch in batches) == 1_000_000
    with pytest.raises(ValueError, match=r"needs more than 48\.0 MiB of memory"):
        list(trace.sql(SORT.replace("range(1_000_000)", "range(1_000_000), names")).to_tuples())
    trace.views()._databases.clear()
    del batches
    gc.collect()
    assert folder_of_views(trace) == before


def folder_of_views(trace: Trace) -> set[str]:
    len(trace.uses())
    return {path.name for path in folder_of(trace).iterdir()}


def test_where_the_cache_lies(tmp_path: Path):
    assert cache_folder({"FGTRAC_CACHE": str(tmp_path), "XDG_CACHE_HOME": "/x"}) == tmp_path
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "fgtrac"
    assert cache_folder({"FGTRAC_CACHE": ""}) == Path.home() / ".cache" / "fgtrac"


@pytest.mark.parametrize("name", ["it's mine", 'a b"c', "ä;--"])
def test_a_cache_of_any_ordinary_name_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / name))
    assert fgtrac.open(make_trace(tmp_path / "t").trace.path).sql(UNDAMAGED).rows[0]["n"] > 0


def test_a_cache_whose_name_is_a_pattern_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "a[b]*"))
    with pytest.raises(ValueError, match="pattern"):
        fgtrac.open(make_trace(tmp_path / "t").trace.path).sql(UNDAMAGED)


def forge(folder: Path) -> None:
    """Another file for `samples`, and its digest in the manifest: what whoever may write there can do."""
    table = pyarrow.parquet.read_table(folder / "samples-0.parquet")
    place = table.schema.get_field_index("uses")
    zeros = pyarrow.array([0] * len(table), pyarrow.uint32())
    pyarrow.parquet.write_table(table.set_column(place, table.schema.field(place), zeros), folder / "samples-0.parquet")
    data = (folder / "samples-0.parquet").read_bytes()
    said = json.loads((folder / MANIFEST).read_text())
    said["files"]["samples"][0] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(said))


def link(folder: Path, elsewhere: Path) -> None:
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


NOBODY = 65534
THEIRS: dict[str, Callable[[Path], object]] = {
    "a folder that anybody may write to": lambda folder: folder.chmod(0o777),
    "a folder that a group may write to": lambda folder: folder.chmod(0o770),
    "a manifest that anybody may write to": lambda folder: (folder / MANIFEST).chmod(0o666),
    "a file that anybody may write to": lambda folder: (folder / "samples-0.parquet").chmod(0o666),
    "another user's folder": lambda folder: os.chown(folder, NOBODY, -1),
    "another user's file": lambda folder: os.chown(folder / "samples-0.parquet", NOBODY, -1),
    "a link": lambda folder: link(folder, folder.parents[2] / "elsewhere"),
}


@pytest.mark.parametrize("theirs", THEIRS)
def test_what_others_may_write_to_is_not_believed_and_built_again(
    tmp_path: Path, cache: Path, builds: list[Path], theirs: str
):
    if "user" in theirs and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    path = make_trace(tmp_path).trace.path
    first = fgtrac.open(path)
    wanted = first.sql("SELECT sum(uses) AS n FROM samples").rows
    folder = folder_of(first)
    first.views()._cached.close()
    forge(folder)
    assert fgtrac.open(path).sql("SELECT sum(uses) AS n FROM samples").rows == [{"n": 0}]  # one's own is believed
    THEIRS[theirs](folder)
    again = fgtrac.open(path)
    assert again.sql("SELECT sum(uses) AS n FROM samples").rows == wanted != [{"n": 0}]
    assert len(builds) == 2
    assert "not forgery by the same user" in again.views().rests_on


def test_folders_above_that_are_open_to_others_are_closed_or_refused(tmp_path: Path, cache: Path):
    path = make_trace(tmp_path).trace.path
    trace = fgtrac.open(path)
    trace.sql(UNDAMAGED)
    for one in (cache / "views", views_folder(trace.id)):
        one.chmod(0o777)
    fgtrac.open(path).sql(UNDAMAGED)
    for one in (cache / "views", views_folder(trace.id)):
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
    cache.chmod(0o777)
    with pytest.raises(ValueError, match=r"anybody may replace folders in .*; name another in FGTRAC_CACHE"):
        fgtrac.open(path).sql(UNDAMAGED)
    cache.chmod(0o1777)
    fgtrac.open(path).sql(UNDAMAGED)
    link(cache / "views", cache / "mine")
    with pytest.raises(ValueError, match="is not a folder of your own"):
        fgtrac.open(path).sql(UNDAMAGED)
