"""An index built in pieces on disk is, byte for byte, the one that is built in memory; and goes on where it was cut."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgtrac.engine.alone import Alone
from fgtrac.engine.opening import open_engine
from fgtrac.errors import EngineError, FgtracError, ProofError
from fgtrac.events.postings import PostingTable
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.events.totals import Totals
from fgtrac.store import index_build
from fgtrac.store.index_build import BuiltIndex, LogPart, build_large_index
from fgtrac.store.index_files import write_index
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import Columns, Tree, build
from fgtrac.tlog.npy import COLUMNS, column_digests
from fgtrac.tlog.tiles import grow
from histories import Event, History
from killed_units import KillingEngine
from signed import put_files


def in_memory(entries: Sequence[bytes]) -> tuple[Tree, Totals]:
    table, totals = PostingTable(), Totals({}, np.empty(0, np.uint64))
    for number, entry in enumerate(entries):
        event = decode_event(entry)
        table.add(number, event)
        totals.add(event)
    return build(Columns(*table.columns())), totals


class Place:
    """A log in a folder, and where its index is built."""

    def __init__(self, folder: Path, entries: Sequence[bytes]) -> None:
        self.trace = TraceDir.create(folder / "run.trace")
        self.entries = list(entries)
        growth = grow(0, self.trace, self.entries)
        self.root = growth.root
        put_files(self.trace.path, growth.files)
        self.work, self.ledger = folder / "work", folder / "ledger"

    def build(self, engine: Any = None, *, new: Sequence[bytes] = (), start: int = 0, **more: Any) -> BuiltIndex:
        size = len(self.entries)
        log = LogPart(self.trace, size, self.root, size, new, start, b"digests" if start else b"")
        return build_large_index(log, engine or Alone(), self.work, self.ledger, **{"memory_bytes": 1, **more})


def same(built: BuiltIndex, tree: Tree, totals: Totals | None = None) -> None:
    assert (built.root, built.leaves) == (tree.root, len(tree))
    assert built.column_digests == column_digests(tree)
    if totals is not None:
        assert built.counts == totals.counts
        assert built.epoch_steps.tolist() == totals.epoch_steps.tolist()


def kept(built: BuiltIndex) -> dict[str, bytes]:
    return {name: hashlib.sha256((built.folder / f"{name}.npy").read_bytes()).digest() for name in COLUMNS}


def encoded(events: Sequence[Event]) -> list[bytes]:
    return [encode_event(event) for event in events]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units so small that a short history has several of each, and samples that are streamed."""
    monkeypatch.setattr(index_build, "FEWEST", 8)
    monkeypatch.setattr(index_build, "PAIRS", 2)
    monkeypatch.setattr("fgtrac.store.index_register.PAIRS", 3)
    monkeypatch.setattr("fgtrac.store.index_register.AT_ONCE", 4)
    monkeypatch.setattr("fgtrac.store.index_register.SAMPLED", 2)


@pytest.mark.parametrize("seed", range(12))
def test_in_pieces_as_in_memory(seed: int, tmp_path: Path, tiny: None) -> None:
    entries = encoded(History(seed, 1 + seed * 40).events)
    place = Place(tmp_path, entries)
    tree, totals = in_memory(entries)
    built = place.build()
    same(built, tree, totals)
    assert kept(built) == built.column_digests


@pytest.mark.parametrize("seed", range(4))
def test_old_columns_are_merged_in_and_the_journal_s_entries_are_read(seed: int, tmp_path: Path, tiny: None) -> None:
    entries = encoded(History(100 + seed, 200).events)
    chosen = random.Random(seed)
    old, sealed = sorted((chosen.randrange(1, 200), chosen.randrange(1, 200)))
    place = Place(tmp_path, entries[:sealed])
    write_index(place.trace.path, old, in_memory(entries[:old])[0])
    built = place.build(start=old, new=entries[sealed:])
    same(built, in_memory(entries)[0])


def test_the_auditor_keeps_no_values(tmp_path: Path, tiny: None) -> None:
    entries = encoded(History(7, 300).events)
    place = Place(tmp_path, entries)
    built = place.build(keep=False)
    same(built, *in_memory(entries))
    assert not list(built.folder.glob("values*"))


def test_nothing_is_registered(tmp_path: Path) -> None:
    place = Place(tmp_path, [])
    built = place.build()
    same(built, *in_memory([]))


def test_a_worker_killed_in_each_kind_of_unit_changes_nothing(tmp_path: Path, tiny: None) -> None:
    entries = encoded(History(3, 300).events)
    place = Place(tmp_path, entries)
    with open_engine("local:2") as engine:
        built = place.build(KillingEngine(engine, tmp_path))
    same(built, *in_memory(entries))
    assert kept(built) == built.column_digests
    assert {p.name for p in tmp_path.glob("*-0")} == {"map_entries-0", "merge_contents_of-0", "reduce_samples-0"}


def test_the_first_bad_entry_is_named_in_the_words_of_the_table(tmp_path: Path, tiny: None) -> None:
    events = History(5, 300).events
    uses = [n for n, event in enumerate(events) if event["kind"] == "use" and len(event["ordinals"])]
    for which in (uses[2], uses[-1]):
        events[which] = events[which] | {"ordinals": events[which]["ordinals"] + np.uint32(1000)}
    entries = encoded(events)
    with pytest.raises(ProofError) as told:
        in_memory(entries)
    with pytest.raises(ProofError) as found:
        Place(tmp_path, entries).build()
    assert str(found.value) == str(told.value)
    assert f"entry {uses[2]} " in str(told.value)


def test_a_block_with_other_ids_is_refused_in_the_same_words(tmp_path: Path) -> None:
    events = [event for event in History(9, 200).events if event["kind"] == "samples"]
    wrong = next(n for n, event in enumerate(events) if event["parts"] == 1)
    events[wrong] = events[wrong] | {"ids": bytes(32)}
    entries = encoded(events)
    with pytest.raises(FgtracError) as told:
        in_memory(entries)
    with pytest.raises(type(told.value)) as found:
        Place(tmp_path, entries).build()
    assert str(found.value) == str(told.value)


def test_a_log_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = History(2, 60).events
    place = Place(tmp_path, encoded(events))
    real = index_build.read_registrations

    def then_changed(*arguments: Any) -> Any:
        found = real(*arguments)
        at = max(n for n, event in enumerate(events) if event["kind"] == "samples")
        changed = encoded([*events[:at], events[at] | {"dataset": "other"}, *events[at + 1 :]])
        for path, data in grow(0, place.trace, changed).files.items():
            (place.trace.path / path).write_bytes(data)
        return found

    monkeypatch.setattr(index_build, "read_registrations", then_changed)
    with pytest.raises(ProofError, match="changed while it was read"):
        place.build()


def test_no_link_in_the_place_of_the_work_folder_or_in_it_is_followed(tmp_path: Path, tiny: None) -> None:
    theirs = tmp_path / "documents"
    theirs.mkdir()
    (theirs / "thesis").write_text("mine")
    place = Place(tmp_path, encoded(History(3, 100).events))
    place.work.symlink_to(theirs)
    folder = place.build().folder
    assert not place.work.is_symlink()
    assert [(p.name, p.read_text()) for p in theirs.iterdir()] == [("thesis", "mine")]

    names = [path.name for path in folder.iterdir()]
    for path in folder.iterdir():
        path.unlink()
        path.symlink_to(theirs / "thesis")
        path.with_name(f"{path.name}.tmp").symlink_to(theirs / "thesis")
    (folder / "ids").unlink()
    os.mkfifo(folder / "ids")
    (place.work / "other").symlink_to(theirs)
    place.ledger.unlink()
    place.work.chmod(0o777)
    same(place.build(), *in_memory(place.entries))
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert [p for p in place.work.iterdir() if p != folder] == []
    assert [(p.name, p.read_text()) for p in theirs.iterdir()] == [("thesis", "mine")]
    assert [p.stat().st_mode & 0o777 for p in (place.work, folder)] == [0o700, 0o700]


class Gone(Alone):
    """So many workers, who go away behind the first unit of a stage."""

    def __init__(self, workers: int, stage: str = "") -> None:
        self.workers, self._stage = workers, stage
        self.units: dict[str, bytes] = {}  # what each is known to give

    def results(self, work: Any, units: Any, **more: Any) -> Any:
        """As `Engine.results`."""
        self.units |= {Path(unit.out).name: unit.known for unit in units}
        for number, result in super().results(work, units, **more):
            yield number, result
            if work.__name__ == self._stage:
                raise EngineError("they went away")


@cache
def long_history() -> tuple[list[bytes], Tree, Totals]:
    entries = encoded(History(3, 1000).events)
    return entries, *in_memory(entries)


def gone(place: Place, workers: int, at_once: int, stage: str) -> dict[str, int]:
    """Go away behind the first unit of a stage; when each file of those that were finished was written."""
    with pytest.raises(EngineError, match="they went away"):
        place.build(Gone(workers, stage), memory_bytes=at_once * SHARE)
    return {path: os.stat(place.work / path).st_mtime_ns for path in place.ledger.read_text().split()[::2]}


SHARE = 5 * index_build.BYTES_A_POSTING  # of up to four workers, for a posting that each may hold
FEWER, MORE = ["0-512", "512-768", "768-1000"], ["0-256", "256-768", "768-1000"]  # where less, or more, is held then


@pytest.mark.parametrize(("stage", "at_once"), [("map_entries", 32768), ("reduce_samples", 4096)])
@pytest.mark.parametrize(("before", "after", "cuts"), [((2, 1), (32, 1), FEWER), ((2, 8), (2, 1), MORE)])
def test_it_goes_on_with_other_workers_and_another_memory(
    tmp_path: Path, tiny: None, stage: str, at_once: int, before: tuple[int, int], after: tuple[int, int],
    cuts: list[str],
) -> None:  # fmt: skip
    entries, *expected = long_history()
    place, engine = Place(tmp_path, entries), Gone(after[0])
    done = gone(place, before[0], at_once // before[1], stage)
    built = place.build(engine, memory_bytes=at_once // after[1] * SHARE)
    same(built, *expected)
    assert kept(built) == built.column_digests
    assert {path: os.stat(place.work / path).st_mtime_ns for path in done} == done
    assert {name for name, known in engine.units.items() if known} == {Path(path).name for path in done}
    if stage == "map_entries":
        assert [name for name in engine.units if name.startswith("map-")] == [f"map-{cut}" for cut in cuts]


def test_a_finished_part_that_is_damaged_is_cut_as_the_memory_of_now_allows(tmp_path: Path, tiny: None) -> None:
    entries, *expected = long_history()
    place, engine = Place(tmp_path, entries), Gone(2)
    (done,) = gone(place, 2, 32768, "map_entries")
    assert Path(done).name == "map-0-512"
    data = bytearray((place.work / done).read_bytes())
    data[-1] ^= 1
    (place.work / done).write_bytes(data)
    same(place.build(engine, memory_bytes=4096 * SHARE), *expected)
    assert [name for name in engine.units if name.startswith("map-")] == [
        "map-0-256", "map-256-512", "map-512-768", "map-768-1000"
    ]  # fmt: skip


class Slipping(Alone):
    """An engine with somebody beside it who flips a bit of a file before a stage."""

    def __init__(self, folder: Path, stage: str, name: str, at: int) -> None:
        super().__init__()
        self._folder, self._stage, self._name, self._at = folder, stage, name, at

    def results(self, work: Any, units: Any, **more: Any) -> Any:
        """As `Engine.results`."""
        if work.__name__ == self._stage:
            (path,) = self._folder.glob(f"*/{self._name}")
            data = bytearray(path.read_bytes())
            data[self._at] ^= 1
            path.write_bytes(data)
        yield from super().results(work, units, **more)


@pytest.mark.parametrize(
    ("stage", "name", "at"),
    [
        ("map_entries", "registered", -1),
        ("merge_contents_of", "pairs", 0),
        ("reduce_samples", "map-0-256", -1),
        ("reduce_samples", "keys.npy", 128 + 33 + 32),
        ("merge_contents_of", "keys.npy", 128 + 33 + 32),
    ],
)
def test_what_is_changed_between_two_stages_is_not_taken_in(
    tmp_path: Path, tiny: None, stage: str, name: str, at: int
) -> None:
    place = Place(tmp_path, encoded(History(3, 300).events))
    with pytest.raises(OSError, match=f"{name} changed while the index was put together"):
        place.build(Slipping(place.work, stage, name, at))
    same(place.build(), *in_memory(place.entries))
