"""Killed in the middle of an epoch and started again: the trace goes on, and what was repeated or skipped is seen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fgtrac
from fgtrac.api.resumes import Resume, find_resumes
from fgtrac.cli.main import app
from fgtrac.verify.report import Verdict
from killed_training import BATCH, ROWS

SCRIPT = Path(__file__).parents[1] / "killed_training.py"
KILLED_AT, SAVED_AT = 8, 6


def train(folder: Path, kind: str, workers: int, kill_at: int = 0, *, killed: bool = True) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), kind, str(workers), str(kill_at)],
        env=os.environ | {"FGTRAC_KEY": str(folder / "key.pem")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (-signal.SIGKILL if kill_at and killed else 0), done.stderr


def truth_of(folder: Path) -> list[tuple[int, list[int]]]:
    """(step, rows) of each update that the final model contains, in order: what came after a step that was gone back to
    is not in it."""
    stands: dict[int, list[int]] = {}
    for line in (folder / "truth.txt").read_text().splitlines():
        step, _epoch, *rows = map(int, line.split())
        stands = {at: rows_then for at, rows_then in stands.items() if at < step} | {step: rows}
    return sorted(stands.items())


def recorded(folder: Path) -> dict[int, list[int]]:
    """Row -> the steps of its uses that stand, as the trace tells."""
    trace = fgtrac.open(folder / "run.trace")
    found = {}
    for row in range(ROWS):
        events = trace.history(f"TensorDataset:{row}").events
        uses = [(e.entry, e.step) for e in events if e.kind == "used"]
        (resume,) = find_resumes(folder / "run.trace")
        found[row] = [step for entry, step in uses if entry > resume.entry or step <= resume.step]
    return found


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))


def killed_and_resumed(folder: Path, kind: str, workers: int) -> Resume:
    """Train, be killed, train on to the end; the log and the truth agree on every use that stands."""
    train(folder, kind, workers, KILLED_AT)
    train(folder, kind, workers)
    steps = recorded(folder)
    told = Counter((step, row) for row, some in steps.items() for step in some)
    assert told == Counter((step, row) for step, rows in truth_of(folder) for row in rows)
    trace = fgtrac.open(folder / "run.trace")
    assert trace.verify().verdict is Verdict.HOLDS
    (resume,) = find_resumes(folder / "run.trace")
    assert (resume.step, resume.reached) == (SAVED_AT, KILLED_AT)
    return resume


def rows_of(resume: Resume, what: str) -> list[int]:
    (cut,) = resume.passes
    return sorted(int(str(one.name).partition(":")[2]) for one in getattr(cut, what))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.matrix("Resume", "plain loop, the epoch begun anew")
def test_an_epoch_that_is_begun_anew_repeats_its_first_samples(tmp_path: Path, workers: int) -> None:
    resume = killed_and_resumed(tmp_path, "anew", workers)
    first = sorted(row for _step, rows in truth_of(tmp_path)[:SAVED_AT] for row in rows)
    assert rows_of(resume, "repeated") == first
    assert rows_of(resume, "skipped") == []
    (cut,) = resume.passes
    assert (cut.epoch, cut.before, cut.after, cut.expected) == (0, SAVED_AT * BATCH, ROWS, ROWS)
    assert cut.against == "its sampler's order, drawn again"


@pytest.mark.matrix("Resume", "plain loop, goes on with the next epoch")
def test_going_on_with_the_next_epoch_leaves_out_the_rest_of_the_one_that_was_cut(tmp_path: Path) -> None:
    resume = killed_and_resumed(tmp_path, "next epoch", 0)
    (cut,) = resume.passes
    assert (cut.epoch, cut.before, cut.after) == (0, SAVED_AT * BATCH, ROWS)
    # Nothing tells the log that the loop means the next epoch: each sample of the first part was used once more.
    assert rows_of(resume, "repeated") == sorted(row for _s, rows in truth_of(tmp_path)[:SAVED_AT] for row in rows)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.matrix("StatefulDataLoader", "killed in mid-epoch, resumed by state_dict")
def test_a_stateful_loader_goes_on_where_it_was_cut(tmp_path: Path, workers: int) -> None:
    resume = killed_and_resumed(tmp_path, "stateful", workers)
    (cut,) = resume.passes
    assert (cut.epoch, cut.before, cut.after) == (0, SAVED_AT * BATCH, ROWS - SAVED_AT * BATCH)
    assert cut.is_whole
    epochs = Counter(row for _step, rows in truth_of(tmp_path) for row in rows)
    assert set(epochs.values()) == {2}


def test_the_command_line_names_them(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, "anew", 0)
    path = str(tmp_path / "run.trace")
    said = CliRunner().invoke(app, ["show", path, "--resumes"], env={"COLUMNS": "200"})
    assert said.exit_code == 0
    assert "resumed from step 6; the log had reached step 8" in said.output
    assert "loader 1, epoch 0: 24 uses before and 44 after, of 44 by its sampler's order, drawn again" in said.output
    assert "repeated: 24 samples: TensorDataset:" in said.output
    assert "and 16 more" in said.output
    assert "skipped" not in said.output
    (one,) = json.loads(CliRunner().invoke(app, ["show", path, "--resumes", "--json"]).output)
    assert len(one["passes"][0]["repeated"]) == 24
    assert {"uses": 2, "expected": 1}.items() <= one["passes"][0]["repeated"][0].items()


def test_a_run_that_was_never_resumed_says_so(tmp_path: Path) -> None:
    train(tmp_path, "anew", 0)
    said = CliRunner().invoke(app, ["show", str(tmp_path / "run.trace"), "--resumes"])
    assert said.output == "the run was never resumed\n"


@pytest.mark.parametrize(("skip", "repeated", "skipped"), [(24, 0, 0), (36, 0, 12), (0, 24, 0)])
@pytest.mark.matrix(
    "Resume", "a sampler of one's own, stopped at a saved state", note="each training sample expected once"
)
def test_an_order_that_nobody_can_draw_again_is_held_against_the_training_samples(
    tmp_path: Path, skip: int, repeated: int, skipped: int
) -> None:
    train(tmp_path, f"sampler {skip}", 0, SAVED_AT, killed=False)
    train(tmp_path, f"sampler {skip}", 0)
    (resume,) = find_resumes(tmp_path / "run.trace")
    (cut,) = resume.passes
    assert (cut.epoch, cut.before, cut.after, cut.expected) == (0, 24, ROWS - skip, ROWS)
    assert (len(cut.repeated), len(cut.skipped)) == (repeated, skipped)
    assert "cannot be drawn again" in cut.unknown
    said = CliRunner().invoke(app, ["show", str(tmp_path / "run.trace"), "--resumes"], env={"COLUMNS": "200"}).output
    assert "by an assumption, each training sample of its data once" in said
    assert "cannot tell the order: its sampler or loader is '__main__.Shuffled'" in said
