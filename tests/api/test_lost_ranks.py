"""A rank that was lost is told as a gap each time, whoever seals the trace then; one that is told is not told again."""

from __future__ import annotations

import atexit
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from fgtrac.api import sealing
from fgtrac.api.adding import beginning, say_lost_ranks
from fgtrac.api.lost_ranks import say_lost
from fgtrac.api.prior import signer_of
from fgtrac.api.run import Run, reopen, start_run
from fgtrac.api.sealing import seal_trace
from fgtrac.store.durable import FolderHold
from fgtrac.store.trace_dir import TraceDir
from told_truth import read_told

DATA = TensorDataset(torch.zeros(3, 1))


def ranks(folder: Path, count: int, *, resume: bool = False) -> list[Run]:
    """So many ranks, of this process."""
    key = folder / "key.pem"
    return [start_run(folder / "run", key=key, rank=n, world_size=count, resume=resume) for n in range(count)]


def both(folder: Path, *, resume: bool = False) -> tuple[Run, Run]:
    """Two."""
    first, second = ranks(folder, 2, resume=resume)
    return first, second


def die(*runs: Run) -> None:
    """What they have flushed stays, and the system lets go of what they hold, as it does for a killed process."""
    for run in runs:
        run._recorder.sync()
        run._open = False
        atexit.unregister(run._interrupted)
        for held in (run._recorder, run._vault, run._held):
            held.close()
        run._grounding.close()  # a killed process has no optimizer that it could hear any more


def reasons(folder: Path) -> list[str]:
    return [gap["reason"] for gap in read_told(folder / "run.trace").kind("gap")]


def lost(rank: int) -> str:
    return f"rank {rank} of 2 ended without leaving: the last of what it trained on may be missing"


def test_a_rank_that_is_lost_twice_is_told_twice(tmp_path: Path) -> None:
    die(*both(tmp_path))
    die(*both(tmp_path, resume=True))
    for _ in range(2):  # the second has nothing more to say
        say_lost(tmp_path / "run.trace", tmp_path / "key.pem")
        assert reasons(tmp_path) == [lost(1), lost(0), lost(1)]


def test_a_resume_tells_a_second_loss_too(tmp_path: Path) -> None:
    for resume in (False, True):
        die(*both(tmp_path, resume=resume))
    first, second = both(tmp_path, resume=True)
    second.close()
    first.close()
    assert reasons(tmp_path) == [lost(1), lost(1)]


@pytest.mark.parametrize(("count", "told"), [(1, [0, 1]), (3, [1])])
def test_a_resume_by_another_number_of_ranks_tells_who_was_lost(tmp_path: Path, count: int, told: list[int]) -> None:
    """A process alone follows no rank 0, so that it tells of that one too."""
    die(*both(tmp_path))
    for again in (False, True):  # the second time there is nothing more to tell
        for run in reversed(ranks(tmp_path, count, resume=True)):
            run.close()
        seal_trace(tmp_path / "run.trace", tmp_path / "key.pem")
        assert reasons(tmp_path) == [lost(rank) for rank in told], again


def test_ranks_that_go_on_with_what_one_process_began_say_nothing_of_it(tmp_path: Path) -> None:
    die(*ranks(tmp_path, 1))
    die(*both(tmp_path, resume=True))
    assert reasons(tmp_path) == []
    seal_trace(tmp_path / "run.trace", tmp_path / "key.pem")
    assert reasons(tmp_path) == [lost(0), lost(1)]


def test_ranks_that_begin_while_a_seal_goes_on_are_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    die(*both(tmp_path))
    at_work: list[Run] = []
    hold_open = sealing.hold_open

    def begins_meanwhile(trace: TraceDir) -> FolderHold:
        at_work.extend(both(tmp_path, resume=True))
        return hold_open(trace)

    monkeypatch.setattr(sealing, "hold_open", begins_meanwhile)
    seal_trace(tmp_path / "run.trace", tmp_path / "key.pem")
    for run in reversed(at_work):
        run.close()
    assert reasons(tmp_path) == [lost(1)]  # of the start before, by the resume


def test_a_resume_that_is_under_way_says_itself_who_was_lost(tmp_path: Path) -> None:
    die(*both(tmp_path))
    trace = TraceDir.open(tmp_path / "run.trace")
    signer = signer_of(trace, tmp_path / "key.pem")
    seal_trace(trace.path, tmp_path / "key.pem", full=False)
    with beginning(trace, signer, wait_s=0.0):
        assert say_lost_ranks(trace, signer) == ()
    assert say_lost_ranks(trace, signer) == (lost(0), lost(1))


def test_a_seal_by_hand_says_who_was_lost(tmp_path: Path) -> None:
    die(*both(tmp_path))
    done = seal_trace(tmp_path / "run.trace", tmp_path / "key.pem")
    assert done.full
    assert done.new_entries == done.size
    for _ in range(2):
        assert reasons(tmp_path) == [lost(0), lost(1)]
        say_lost(tmp_path / "run.trace", tmp_path / "key.pem")
        seal_trace(tmp_path / "run.trace", tmp_path / "key.pem")
    assert reasons(tmp_path) == [lost(0), lost(1)]


def test_who_adds_to_the_trace_says_who_was_lost(tmp_path: Path) -> None:
    die(*both(tmp_path))
    with reopen(tmp_path / "run.trace", key=tmp_path / "key.pem"):
        pass
    assert reasons(tmp_path) == [lost(0), lost(1)]


def test_a_seal_beside_the_training_says_nothing_and_hides_nothing(tmp_path: Path) -> None:
    first, second = both(tmp_path)
    seal_trace(tmp_path / "run.trace", tmp_path / "key.pem")
    assert reasons(tmp_path) == []
    first.register(DATA)
    die(first, second)
    say_lost(tmp_path / "run.trace", tmp_path / "key.pem")
    assert reasons(tmp_path) == [lost(0), lost(1)]


def test_a_rank_0_that_closes_by_an_error_is_not_lost(tmp_path: Path) -> None:
    first, second = both(tmp_path)
    second.close()
    first.close(finished=False)
    say_lost(tmp_path / "run.trace", tmp_path / "key.pem")
    assert reasons(tmp_path) == []
