"""Seals of more than fits in memory: the same log and index as others, in portions, and after any cut."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fgtrac.commit import indexer, sequencer, tidy
from fgtrac.commit.indexer import UNFINISHED, Means, find_damaged_column
from fgtrac.commit.sequencer import SealResult, seal
from fgtrac.engine.alone import Alone
from fgtrac.errors import FormatError, ProofError
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.npy import COLUMNS, column_path

World = Any  # conftest.py
WRITER = bytes(16)
SMALL = Means("local:1", 1)


class Cut(Exception):
    """A process that ends in the middle."""


def sealed(world: World, means: Means, *, full: bool = True) -> SealResult:
    return seal(world.trace, world.signer, full=full, clock=lambda: next(world.time), means=means)


def record(world: World, steps: int = 3) -> None:
    world.write(*world.begin(WRITER))
    for step in range(steps):
        world.write(world.use(WRITER, step, [0, step % 19, 19, 19]))
    world.close(WRITER)


def columns(trace: TraceDir, size: int) -> dict[str, bytes]:
    return {name: trace.read(column_path(size, name)) for name in COLUMNS}


def index_of(world: World) -> tuple[bytes, int]:
    said = decode_event(world.log()[-1])
    return said["root"], said["leaves"]


def last_index(world: World) -> dict[str, bytes]:
    return columns(world.trace, world.trace.full_seals()[-1])


def in_memory(make_world: Callable[[], World], log: Sequence[bytes]) -> dict[str, bytes]:
    """The columns over these entries (without the last `seal` entry), as a seal in memory builds them."""
    world = make_world()
    world.trace.journal.mkdir(exist_ok=True)
    events = [(decode_event(entry)["writer"], entry) for entry in log[:-1]]
    built = indexer.build_index(world.trace, 0, [entry for _, entry in events])
    built.index.put(world.trace, 1)
    return columns(world.trace, 1)


def test_a_seal_in_pieces_is_a_seal_in_portions(make_world: Callable[[], World]) -> None:
    world = make_world()
    record(world)
    result = sealed(world, SMALL)
    assert (result.size, result.new_entries, result.full) == (7, 7, True)
    assert world.kinds() == ["run", "dataset", "samples", "use", "use", "use", "seal"]
    assert last_index(world) == in_memory(make_world, world.log())
    assert not (world.trace.path / UNFINISHED).exists()
    assert not world.signer.index_path.exists()
    assert [p.name for p in world.trace.journal.iterdir()] == ["7.seal"]


def test_a_later_seal_merges_the_columns_before(make_world: Callable[[], World]) -> None:
    world = make_world()
    record(world)
    sealed(world, Means("local:1"))
    world.write(world.use(WRITER, 5, [3, 4, 4]))
    world.close(WRITER)
    sealed(world, SMALL)
    assert last_index(world) == in_memory(make_world, world.log())
    assert world.trace.full_seals() == [7, 9]


def test_a_lost_index_comes_back_in_pieces(world: World) -> None:
    record(world)
    sealed(world, SMALL)
    before = last_index(world)
    (world.trace.path / column_path(7, "values")).unlink()
    assert sealed(world, SMALL).new_entries == 0
    assert last_index(world) == before


def test_what_a_whole_log_lacks_is_said_in_the_same_words(make_world: Callable[[], World]) -> None:
    said = []
    for means in (SMALL, Means("local:1")):
        world = make_world()
        entries = world.begin(WRITER)
        world.write(entries[0], entries[1], world.use(WRITER, 0, [1]))
        world.close(WRITER)
        with pytest.raises(ProofError) as raised:
            sealed(world, means)
        said.append(str(raised.value))
        assert sealed(world, means, full=False).size == 4  # and the gap
    assert said[0] == said[1]
    assert "entry 2 (use)" in said[0]


class CutEngine(Alone):
    """Ends before the unit of that number, of all that it does."""

    left = 0

    def results(self, work: Any, units: Sequence[Any], **more: Any) -> Iterator[tuple[int, Any]]:
        for number, unit in enumerate(units):
            if CutEngine.left == 0:
                raise Cut(work.__name__)
            CutEngine.left -= 1
            yield number, work(unit)


def test_cut_before_each_unit_and_sealed_again(
    make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgtrac.store.index_build.FEWEST", 16)
    cut_in, left = set(), 0
    while True:
        world = make_world()
        record(world)
        with monkeypatch.context() as patch:
            patch.setattr("fgtrac.engine.opening.Alone", CutEngine)
            CutEngine.left = left
            try:
                sealed(world, SMALL)
                break
            except Cut as cut:
                cut_in.add(str(cut))
        done = count_done(world)
        again = sealed(world, SMALL)
        assert again.full
        assert last_index(world) == in_memory(make_world, world.log())
        assert done == left
        left += 1
    assert cut_in == {"map_entries", "reduce_samples"}


def count_done(world: World) -> int:
    path = world.signer.index_path
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def test_finished_units_are_taken_over_and_damaged_ones_are_not(
    world: World, make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgtrac.store.index_build.FEWEST", 16)
    record(world)
    with monkeypatch.context() as patch:
        patch.setattr(sequencer, "_seal_fields", lambda *_: cut())
        with pytest.raises(Cut):
            sealed(world, SMALL)  # all units are done, and nothing is planned
    (work,) = (world.trace.path / UNFINISHED).iterdir()
    kept = {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    damaged = sorted(name for name in kept if name.startswith(("map-", "reduce-")))[::2]
    for name in damaged:
        data = bytearray((work / name).read_bytes())
        data[-1] ^= 1
        (work / name).write_bytes(bytes(data))
    with monkeypatch.context() as patch:
        patch.setattr(sequencer, "_seal_fields", lambda *_: cut())
        with pytest.raises(Cut):
            sealed(world, SMALL)
    redone = {p.name for p in work.iterdir() if p.name.startswith("reduce-") and p.stat().st_mtime_ns != kept[p.name]}
    assert redone == {name for name in damaged if name.startswith("reduce-")}
    values = work / "values.npy"
    data = bytearray(values.read_bytes())
    data[200] ^= 1
    values.write_bytes(bytes(data))
    sealed(world, SMALL)
    assert last_index(world) == in_memory(make_world, world.log())


def cut() -> None:
    raise Cut


@pytest.mark.parametrize("moment", [1, 7, 14])
def test_killed_at_a_write_and_sealed_again(
    moment: int, make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgtrac.store.index_build.FEWEST", 16)
    world = make_world()
    record(world, steps=40)
    sealed(world, SMALL, full=False)
    program = [sys.executable, Path(__file__).with_name("killed_seal.py"), world.trace.path, world.state, str(moment)]
    assert subprocess.run(program, check=False).returncode == -signal.SIGKILL
    sealed(world, SMALL)
    assert last_index(world) == in_memory(make_world, world.log())
    assert not (world.trace.path / UNFINISHED).exists()


def test_after_the_plan_the_index_is_found_where_it_was_built(
    world: World, make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    record(world)
    with monkeypatch.context() as patch:
        patch.setattr(sequencer, "publish", lambda *_a, **_k: cut())
        with pytest.raises(Cut):
            sealed(world, Means("local:1", 1 << 20))
    patch_puts = []
    real = sequencer.build_index
    monkeypatch.setattr(sequencer, "build_index", lambda *a, **k: patch_puts.append(a) or real(*a, **k))
    assert sealed(world, SMALL).size == 7
    assert last_index(world) == in_memory(make_world, world.log())
    assert patch_puts == []


def test_where_a_file_has_one_name_the_columns_are_moved(
    world: World, make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    record(world)
    sealed(world, SMALL)
    assert last_index(world) == in_memory(make_world, world.log())


def test_a_pipe_as_a_column_keeps_no_seal_waiting(world: World) -> None:
    record(world)
    result = sealed(world, Means("local:1"))
    before = last_index(world)
    path: Path = world.trace.path / column_path(result.size, "keys")
    path.unlink()
    os.mkfifo(path)
    assert find_damaged_column(world.trace, result.size, {}) == "keys"
    sealed(world, Means("local:1"))
    assert last_index(world) == before


@pytest.mark.parametrize("moment", ["never", "before", "after"])
def test_a_damaged_end_has_its_gap_however_the_portions_are_cut(
    world: World, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    record(world, steps=1)
    (path,) = world.trace.journal.glob("*.wal")
    damaged = path.read_bytes() + b"\xff" * 50 + b"damage" * 30
    path.write_bytes(damaged)
    other = b"\1" * 16
    world.write(world.use(other, 1, [2]))
    world.write(world.use(other, 2, [3]))
    world.close(other)
    real = tidy.after_seal

    def cut_behind_the_damaged_segment(*what: Any) -> None:
        is_last = moment != "never" and what[1].writers.get(WRITER) == 4
        if moment != "before" or not is_last:
            real(*what)
        if is_last:
            raise Cut

    monkeypatch.setattr(tidy, "after_seal", cut_behind_the_damaged_segment)
    try:
        sealed(world, SMALL)
    except Cut:
        monkeypatch.setattr(tidy, "after_seal", real)
        sealed(world, Means("local:1"))
    assert world.kinds() == ["run", "dataset", "samples", "use", "gap", "use", "use", "seal"]
    assert path.name in decode_event(world.log()[4])["detail"]
    assert path.with_name(path.name + ".damaged").read_bytes() == damaged
    assert not path.exists()


def test_an_index_folder_that_is_a_link_is_refused_and_nothing_behind_it_goes(world: World, tmp_path: Path) -> None:
    (tmp_path / "documents" / "unfinished").mkdir(parents=True)
    thesis = tmp_path / "documents" / "unfinished" / "thesis"
    thesis.write_text("mine")
    record(world)
    (world.trace.path / "index").symlink_to(tmp_path / "documents")
    with pytest.raises(FormatError, match="index is a link"):
        sealed(world, SMALL)
    sealed(world, Means("local:1"), full=False)
    assert thesis.read_text() == "mine"


@pytest.mark.parametrize("means", [Means("local:1"), SMALL])
def test_a_part_in_an_older_index_that_the_whole_block_does_not_have_is_refused_however_it_is_sealed(
    world: World, means: Means
) -> None:
    world.write(*world.begin(WRITER)[:2])
    world.seqs[WRITER] = 2
    named = {"dataset": "digits", "block": world.block, "part": 0}
    world.write(world.entry(WRITER, "samples", {**named, "parts": 2, "ids": b"\1" * 32 + b"\2" * 32}))
    sealed(world, Means("local:1"))
    world.write(world.entry(WRITER, "samples", {**named, "parts": 1, "ids": b"".join(world.ids)}))
    world.close(WRITER)
    with pytest.raises(
        ProofError, match=r"entry 4 \(samples\): block .* was registered with other ids than those from 01"
    ):
        sealed(world, means)
