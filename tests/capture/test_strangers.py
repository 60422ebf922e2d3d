"""Training on what a loader delivers that nobody watches: said with the remedy, in a strict run refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fgtrac
from fgtrac.errors import CaptureError

WORDS = "the model is trained on batches of a loader over TensorDataset that is not watched"
WATCHED, HELD_OUT = TensorDataset(torch.randn(12, 2)), TensorDataset(torch.randn(8, 2))


class Loop:
    """A model, and loops that train it on a watched loader, on another, or on both."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(2, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)

    def train(self, *batches: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        torch.stack([self.model(batch).square().mean() for batch in batches]).sum().backward()
        self.optimizer.step()


def stranger(loop: Loop, run: fgtrac.Run) -> None:
    for (batch,) in DataLoader(HELD_OUT, batch_size=4):
        loop.train(batch)


def watched_then_stranger(loop: Loop, run: fgtrac.Run) -> None:
    for (batch,) in run.watch(DataLoader(WATCHED, batch_size=4), role="train"):
        loop.train(batch)
    stranger(loop, run)


def stranger_then_watched(loop: Loop, run: fgtrac.Run) -> None:
    stranger(loop, run)
    for (batch,) in run.watch(DataLoader(WATCHED, batch_size=4), role="train"):
        loop.train(batch)


def one_loss_over_both(loop: Loop, run: fgtrac.Run) -> None:
    watched = run.watch(DataLoader(WATCHED, batch_size=4), role="train")
    for (batch,), (other,) in zip(watched, DataLoader(HELD_OUT, batch_size=4), strict=False):
        loop.train(batch, other)


LOOPS = (stranger, watched_then_stranger, stranger_then_watched, one_loss_over_both)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_gap_and_a_warning_say_so_and_training_goes_on(tmp_path: Path, loop) -> None:
    with fgtrac.start_run(tmp_path / "a", ids="public") as run:
        run.register(HELD_OUT, name="held", role="test")
        with pytest.warns(RuntimeWarning, match=WORDS) as told:
            loop(Loop(), run)
    assert [WORDS in str(one.message) for one in told].count(True) == 1
    assert "run.watch(loader, role=...)" in next(str(one.message) for one in told if WORDS in str(one.message))
    trace = fgtrac.open(tmp_path / "a.trace")
    gaps = [trace._seal.log.event(n) for n in trace._seal.log.find_kind("gap", trace._seal.event["counts"]["gap"])]
    assert WORDS in [gap["reason"] for gap in gaps]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_strict_run_refuses(tmp_path: Path, loop) -> None:
    with fgtrac.start_run(tmp_path / "a", ids="public", strict=True) as run:
        run.register(HELD_OUT, name="held", role="test")
        with pytest.raises(CaptureError, match=WORDS):
            loop(Loop(), run)


def test_evaluating_what_nobody_watches_is_no_training(tmp_path: Path) -> None:
    loop = Loop()
    with fgtrac.start_run(tmp_path / "a", strict=True) as run:
        for (batch,) in run.watch(DataLoader(WATCHED, batch_size=4), role="train"):
            loop.train(batch)
            for (other,) in DataLoader(HELD_OUT, batch_size=4):
                loop.model(other).sum()  # with gradients on, as it happens
    assert "gap" not in fgtrac.open(tmp_path / "a.trace")._seal.event["counts"]


def test_a_loader_of_another_time_says_nothing(tmp_path: Path) -> None:
    with fgtrac.start_run(tmp_path / "a", strict=True):
        pass
    stranger(Loop(), None)
