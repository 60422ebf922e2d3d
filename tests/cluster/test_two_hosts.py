"""Two hosts that share a wire and no folder record one trace, and it tells the truth of both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fgtrac.verify.report import Verdict
from rank_processes import Plan
from replays import replayed, report
from told_truth import Told, read_told
from two_hosts import train_on, two_hosts, why_not

REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)
OPTIONS: dict[str, Any] = {"gather": True, "flush_interval_s": 0.05}


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[str, str]]:
    with two_hosts() as names:
        yield names


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """One for each host; `begin` makes a folder for its rank in it."""
    made = [tmp_path / "host-a", tmp_path / "host-b"]
    for folder in made:
        folder.mkdir()
    return made


def told(folders: list[Path]) -> Told:
    return read_told(folders[0] / "run.trace")


def refuted(folders: list[Path]) -> list[str]:
    return [found.words for found in report(folders[0]).findings if found.verdict is Verdict.REFUTED]


@pytest.mark.parametrize("ids", ["keyed", "public"])
def test_two_hosts_record_one_trace(hosts: tuple[str, str], folders: list[Path], ids: str) -> None:
    trained = train_on(hosts, folders, Plan(options=OPTIONS | {"ids": ids}), {})
    said = told(folders)
    assert [said.trained(rank) for rank in (0, 1)] == trained
    assert said.counts("join", "leave", "end", "gap") == [2, 1, 1, 0]
    assert replayed(folders[0]).verdict is Verdict.HOLDS
    assert [path.name for path in folders[1].iterdir()] == []  # a head covers what the second host had kept


def test_where_the_first_host_dies_nothing_of_the_second_is_lost(hosts: tuple[str, str], folders: list[Path]) -> None:
    cut = train_on(hosts, folders, Plan(killed_at=(0, 1, 2), checkpoints="none", options=OPTIONS), {})
    assert "what this rank recorded last is not known to be in the log" in cut[1]
    assert any((folders[1] / "run.kept").rglob("*.wal"))
    again = train_on(hosts, folders, Plan(epochs=1, options=OPTIONS | {"resume": True}), {})
    assert all(isinstance(one, list) for one in again), again
    said = told(folders)
    assert said.counts("resume", "join", "end", "gap") == [1, 4, 1, 0]
    assert [len(said.trained(1, start)) for start in (0, 1)] == [10, 7]
    assert not refuted(folders)
    assert not (folders[1] / "run.kept").exists()


def test_where_the_second_host_dies_a_gap_says_so(hosts: tuple[str, str], folders: list[Path]) -> None:
    train_on(hosts, folders, Plan(killed_at=(1, 1, 2), options=OPTIONS), {})
    said = told(folders)
    (gap,) = said.kind("gap")
    assert gap["reason"].startswith("rank 1 of 2 was still recording when rank 0 ended")
    assert said.counts("end") == [0]
    assert not refuted(folders)
