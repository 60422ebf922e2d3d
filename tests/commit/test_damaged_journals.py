"""Damage in journals: the log tells each loss, and each once, in however many files, portions and seals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fgtrac.commit import tidy
from fgtrac.commit.indexer import Means
from fgtrac.commit.sequencer import SealResult, seal
from fgtrac.events.schema import decode_event

World = Any  # conftest.py
WRITER = bytes(16)
PORTIONS = Means("local:1", 1)  # of one entry


class Cut(Exception):
    """A process that ends in the middle."""


def sealed(world: World, means: Means | None = None, *, full: bool = False) -> SealResult:
    return seal(world.trace, world.signer, full=full, clock=lambda: next(world.time), means=means or Means("local:1"))


def record(world: World, *steps: int) -> list[int]:
    """One use a step; where each begins in the newest file."""
    places = []
    if WRITER not in world.seqs:
        world.write(*world.begin(WRITER))
    for step in steps:
        places.append(newest(world).stat().st_size)
        world.write(world.use(WRITER, step, [step % 5]))
    return places


def newest(world: World) -> Path:
    found: Path = max(world.trace.journal.glob("*.wal"), key=lambda path: int(path.stem.rpartition("-")[2]))
    return found


def damage(path: Path, start: int, stop: int | None = None) -> str:
    """Damages these bytes, to the end without `stop`; its words."""
    data = bytearray(path.read_bytes())
    stop = len(data) if stop is None else stop
    data[start:stop] = b"\xff" * (stop - start)
    path.write_bytes(data)
    return f"{stop - start} damaged bytes in {path.name} from offset {start}"


def gaps(world: World) -> list[tuple[str, Any, Any]]:
    """Of each gap entry: its words, the first number that it names, and where these stop."""
    said = [event for event in map(decode_event, world.log()) if event["kind"] == "gap"]
    return [(event.get("detail", ""), event.get("first"), event.get("stop")) for event in said]


@pytest.mark.parametrize("means", [Means("local:1"), PORTIONS])
def test_two_damages_of_one_file_have_a_gap_each(world: World, means: Means) -> None:
    places = record(world, *range(6))
    world.close(WRITER)
    path = newest(world)
    middle, end = damage(path, places[1], places[2]), damage(path, places[5])
    sealed(world, means, full=True)
    assert gaps(world) == [(middle, 4, 5), (end, None, None)]
    assert [path.name for path in world.trace.journal.glob("*.wal*")] == [f"{path.name}.damaged"]


def test_an_end_in_another_file_has_its_gap_and_one_with_a_file_behind_it_only_its_numbers(world: World) -> None:
    places, files = record(world, 0, 1), []
    for steps in ([2, 3], [4, 5]):
        files.append((newest(world), places[1]))
        world.journals[WRITER].rotate()
        world.journals[WRITER].append([])
        places = record(world, *steps)
    files.append((newest(world), places[1]))
    world.close(WRITER)
    words = [damage(*file) for file in files]
    sealed(world)
    assert gaps(world) == [(words[0], 4, 5), (words[1], 6, 7), (words[2], None, None)]


@pytest.mark.parametrize("portions_later", [0, 1, 2])
def test_a_seal_that_is_cut_behind_a_gap_does_not_tell_it_again(
    world: World, monkeypatch: pytest.MonkeyPatch, portions_later: int
) -> None:
    places = record(world, *range(6))
    world.close(WRITER)
    middle = damage(newest(world), places[1], places[2])
    real = tidy.after_seal

    def cut(*what: Any) -> None:
        real(*what)
        if "gap" in world.kinds()[: -portions_later or None]:
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(tidy, "after_seal", cut)
        with pytest.raises(Cut):
            sealed(world, PORTIONS)
    sealed(world, full=True)
    assert gaps(world) == [(middle, 4, 5)]
    assert world.kinds().count("use") == 5


def test_damage_in_a_file_that_is_held_for_long_is_told_once(world: World) -> None:
    places = record(world, *range(3))
    middle = damage(newest(world), places[1], places[2])
    for step in (3, 4, 5):
        sealed(world)
        record(world, step)
    world.close(WRITER)
    sealed(world, full=True)
    assert gaps(world) == [(middle, 4, 5)]
    assert not list(world.trace.journal.glob("*.wal"))


def test_what_a_writer_goes_on_behind_is_told_by_its_numbers_and_what_it_does_not_when_it_ends(world: World) -> None:
    places = record(world, 0, 1)
    first = newest(world)
    world.journals[WRITER].rotate()
    world.journals[WRITER].append([])  # holds the next file
    words = damage(first, places[1])
    sealed(world)
    assert gaps(world) == []
    (place,) = record(world, 2)
    sealed(world)
    assert gaps(world) == [(words, 4, 5)]
    end = damage(newest(world), place)
    sealed(world)
    assert len(gaps(world)) == 1
    world.close(WRITER)
    sealed(world)
    sealed(world, full=True)
    assert gaps(world) == [(words, 4, 5), (end, None, None)]


def test_damage_between_two_entries_that_follow_each_other_lost_none(world: World) -> None:
    record(world, 0)
    path = newest(world)
    world.close(WRITER)
    path.write_bytes(path.read_bytes() + b"\xff" * 30)
    record(world, 1)
    world.close(WRITER)
    sealed(world, full=True)
    assert gaps(world) == []
    assert path.with_name(f"{path.name}.damaged").exists()
