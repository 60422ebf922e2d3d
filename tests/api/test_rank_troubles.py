"""Ranks that are lost, late, come twice or fail: the record says so, and no honest one is refuted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from fgtrac.api import adding, ranks
from fgtrac.api.gathered import SentJournal
from fgtrac.api.kept import Kept
from fgtrac.api.ranks import Ranks
from fgtrac.api.run import Run, start_run
from fgtrac.api.sealing import seal_trace
from fgtrac.capture.recorder import Recorder
from fgtrac.commit.gather import read_segments
from fgtrac.errors import CaptureError
from fgtrac.store.folder_store import FolderStore
from fgtrac.store.journal import JournalWriter
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.report import Verdict
from replays import report
from told_truth import read_told

DATA = TensorDataset(torch.arange(8.0)[:, None])


def start(folder: Path, rank: int | None = None, **options: Any) -> Run:
    """One of two ranks, of this process, or one by itself."""
    those = {} if rank is None else {"rank": rank, "world_size": 2}
    return start_run(folder / "run", key=folder / "key.pem", ids="public", **those, **options)


def refuted(folder: Path) -> list[str]:
    return [found.words for found in report(folder).findings if found.verdict is Verdict.REFUTED]


def test_entries_of_a_rank_that_left_and_that_did_not_come_in_are_a_gap(tmp_path: Path) -> None:
    first, second = start(tmp_path, 0), start(tmp_path, 1)
    first.register(DATA, role="train")
    second.use([0, 1], data=DATA)
    lost = second._recorder.writer
    second.close()
    for segment in (tmp_path / "run.trace" / "journal").glob(f"{lost.hex()}*"):
        segment.unlink()
    with pytest.warns(RuntimeWarning, match="rank 1 of 2 left, and the last 3 of its entries are lost"):
        first.close()
    said = read_told(tmp_path / "run.trace")
    (gap,) = said.kind("gap")
    assert (gap["lost_writer"], gap["first"], gap["stop"]) == (lost, 0, 3)
    assert not refuted(tmp_path)


def test_a_rank_that_goes_on_after_the_end_is_not_refuted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "END_WAIT_S", 0.1)
    first, second = start(tmp_path, 0), start(tmp_path, 1)
    first.register(DATA, role="train")
    sealed, now = [], first._sealer.now

    def seal_and_go_on() -> None:
        now()
        second.use([0, 1], data=DATA)
        second._recorder.sync()
        sealed.append(True)

    monkeypatch.setattr(first._sealer, "now", seal_and_go_on)
    with pytest.warns(RuntimeWarning, match="rank 1 of 2 was still recording when rank 0 ended"):
        first.close()
    assert sealed
    assert not refuted(tmp_path)
    second.close()
    assert not (tmp_path / "run.ranks").exists()
    seal_trace(tmp_path / "run.trace", tmp_path / "key.pem")
    assert read_told(tmp_path / "run.trace").counts("use", "leave", "end", "gap") == [1, 1, 1, 1]
    assert not refuted(tmp_path)


def test_a_rank_that_failed_leaves_a_run_without_an_end(tmp_path: Path) -> None:
    first, second = start(tmp_path, 0), start(tmp_path, 1)
    second.close(finished=False)
    with pytest.warns(RuntimeWarning, match="rank 1 of 2 ended by an error, so that the run has no end"):
        first.close()
    assert read_told(tmp_path / "run.trace").counts("leave", "end", "gap") == [1, 0, 0]


def test_a_rank_joins_once(tmp_path: Path) -> None:
    first, second = start(tmp_path, 0), start(tmp_path, 1)
    second.close()
    with pytest.raises(CaptureError, match="rank 1 of 2 has joined this training before; start all of its ranks anew"):
        start(tmp_path, 1)
    first.close()
    assert read_told(tmp_path / "run.trace").counts("join", "leave", "end") == [2, 1, 1]


@pytest.mark.parametrize("mine", [None, 0])
@pytest.mark.parametrize("theirs", [None, 0])
def test_a_training_that_is_at_work_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: int | None, theirs: int | None
) -> None:
    monkeypatch.setattr(adding, "ENDING_S", 0.1)
    monkeypatch.setattr(ranks, "JOIN_WAIT_S", 0.0)
    at_work = start(tmp_path, theirs)
    at_work._sealer.now()  # everything is sealed, and its journal empty
    with pytest.raises(CaptureError, match=r"run\.trace is being recorded by a process now"):
        start(tmp_path, mine, resume=True)
    if theirs is None:
        at_work.close()
        start(tmp_path, resume=True).close()
        assert read_told(tmp_path / "run.trace").counts("resume", "end") == [1, 2]
    else:
        with pytest.warns(RuntimeWarning, match="rank 1 of 2 recorded nothing"):
            at_work.close()


def test_what_another_start_has_left_is_not_what_this_one_has(tmp_path: Path) -> None:
    """A rank of an earlier start that ends late says so to the later one's store."""
    (tmp_path / "journal").mkdir()
    keeper, late, rank = (Ranks(n, 2, FolderStore(tmp_path / "run.ranks")) for n in (0, 1, 1))
    late.begin_writing(bytes(16), tmp_path / "journal", lambda: None)
    rank.begin_writing(bytes([1]) * 16, tmp_path / "journal", lambda: None)
    rank.tell_joined()
    late.tell_left(5, finished=True)
    assert keeper._state_of(1, tmp_path / "journal") == "dead"
    rank.tell_left(5, finished=True)
    assert keeper._state_of(1, tmp_path / "journal") == "left"


def test_nobody_waits_for_a_registration_by_a_rank_that_died(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    first, second = (Ranks(n, 2, FolderStore(tmp_path / "run.ranks")) for n in (0, 1))
    first.begin_writing(bytes(16), folder, lambda: None)
    second.begin_writing(bytes([1]) * 16, folder, lambda: None)
    journal = JournalWriter(folder, bytes(16), stays=True)
    turn = first.turn("data")
    turn.__enter__()
    journal.close()  # as the system does for a process that is killed
    with pytest.raises(CaptureError, match="the rank that was registering 'data' ended before that was done"):
        second.turn("data").__enter__()
    FolderStore(tmp_path / "run.ranks").clear()
    gone = Ranks(1, 2, FolderStore(tmp_path / "run.ranks", keeps=False))
    with gone.turn("data") as mine:  # nobody is left to hear it
        assert mine.elsewhere is None


def test_a_rank_that_never_joined_is_a_gap_at_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does anyone know what it trained on."""
    monkeypatch.setattr(ranks, "JOIN_WAIT_S", 0.0)
    first = start(tmp_path, 0)
    for _ in range(7):
        first.use([0, 1], data=DATA)
    with pytest.warns(RuntimeWarning, match="rank 1 of 2 recorded nothing"):
        first.close(finished=False)
    words = "training goes on from step 7, and the log has no updates after step 0"
    with pytest.warns(RuntimeWarning, match=words):
        start(tmp_path, resume=True, step=7).close()
    assert [gap["reason"] for gap in read_told(tmp_path / "run.trace").kind("gap")][1:] == [words]


@pytest.mark.parametrize("strict", [False, True])
def test_where_rank_0_is_gone_a_rank_says_what_it_keeps(tmp_path: Path, strict: bool) -> None:
    gone = Ranks(1, 2, FolderStore(tmp_path / "run.ranks", keeps=False), gathers=True)
    kept = Kept(gone, tmp_path / "run.trace", bytes(16))
    kept.begin(bytes(16), [bytes(32)])
    kept.finished, kept.strict = True, strict
    recorder = Recorder(SentJournal(kept, bytes(16)), bytes(16), flush_interval_s=0, strict=strict)
    number = recorder.record("leave", {})[1]
    kept.send_parcel("names", [])
    recorder.close()
    words = "not known to be in the log \\(rank 0 does not take the journal any more: .* it stays in .*run.kept"
    with pytest.raises(CaptureError, match=words) if strict else pytest.warns(RuntimeWarning, match=words):
        kept.close()
    (segment,) = read_segments(TraceDir(kept.folder))
    assert [frame.seq for frame in segment.frames] == [number]
    assert [path.name for path in (kept.folder / "parcels").iterdir()] == [f"{bytes(16).hex()}-00000000"]
    assert (kept.folder.parent.stat().st_mode & 0o77) == 0


def test_a_loops_own_error_stands_where_the_journal_cannot_be_written(tmp_path: Path) -> None:
    first, second = start(tmp_path, 0), start(tmp_path, 1)

    def fail(entries: list[bytes]) -> None:
        raise OSError("the disk is gone")

    second._recorder._journal.append = fail  # type: ignore[method-assign]
    with pytest.warns(RuntimeWarning) as told, pytest.raises(ZeroDivisionError), second:
        raise ZeroDivisionError
    assert "the end of the run is not in the trace: the disk is gone" in str(told[-1].message)
    with pytest.warns(RuntimeWarning, match="rank 1 of 2 left, and the last 1 of its entries are lost"):
        first.close(finished=False)
