"""The note on bound epochs says too which were used unannounced, and that the log has times in the future."""

from __future__ import annotations

import time

import pytest

from fgtrac.verify.receipts import WITNESS
from signed import write
from witnessed_traces import EVENTS, FIRST, TRUE, Stage, use_in, verify


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.set(tmp_path_factory.mktemp("stage"))


def note_about_epochs(stage: Stage, files: dict[str, bytes]) -> str:
    report = verify(stage.anchor(files, FIRST, kinds=(WITNESS,)), stage.trusts(WITNESS))
    (words,) = [note for note in report.notes if note.startswith("the announced order binds")]
    return words


def test_nothing_is_added_where_all_was_announced_and_nothing_is_in_the_future(stage: Stage) -> None:
    words = note_about_epochs(stage, TRUE)
    assert "used without" not in words
    assert "this computer's clock" not in words


def test_epochs_that_were_used_without_an_announced_order_are_said(stage: Stage) -> None:
    event = {**use_in(7, 3, 1), "time": EVENTS[6]["time"]}
    files = write(*EVENTS[:6], event, *EVENTS[7:])
    words = note_about_epochs(stage, files)
    assert "in 1 of 2 epochs" in words
    assert "; 1 epoch used without an announced order" in words


@pytest.mark.parametrize(("ahead_s", "bound"), [(60, 1), (900, 0)])
def test_uses_that_are_dated_into_the_future_are_not_bound_and_said(stage: Stage, ahead_s: int, bound: int) -> None:
    """Everything from the first use on; the witness had the announcement long ago."""
    moved = round((time.time() + ahead_s) * 10**9)
    told = [event if number < FIRST else {**event, "time": moved} for number, event in enumerate(EVENTS)]
    words = note_about_epochs(stage, write(*told))
    assert f"in {bound} of 2 epochs" in words
    assert ("entries say that they were recorded until" in words) == (bound == 0)
