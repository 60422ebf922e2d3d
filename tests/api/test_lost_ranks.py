"""A rank that was lost is told as a gap each time, whoever seals the trace then; one that is told is not told again."""

from __future__ import annotations

import atexit
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from fgtrac.api.lost_ranks import say_lost
from fgtrac.api.run import Run, reopen, start_run
from fgtrac.api.sealing import seal_trace
from told_truth import read_told

DATA = TensorDataset(torch.zeros(3, 1))


def both(folder: Path, *, resume: bool = False) -> tuple[Run, Run]:
    """Two ranks, of this process."""
    key = folder / "key.pem"
    first, second = (start_run(folder / "run", key=key, rank=n, world_size=2, resume=resume) for n in (0, 1))
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
