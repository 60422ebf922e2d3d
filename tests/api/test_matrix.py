"""The matrix of all scores is written part by part, and a job that was killed goes on where it stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fgtrac
from softmax_traces import Problem, scored_trace

TARGETS = ("digits:345", "role:validation", "class:2:test", "digits:4")
WRITE = f"""
import sys, fgtrac
def told(done, total):
    print(done, flush=True)
    sys.stdin.readline()
trace, folder = sys.argv[1:]
fgtrac.open(trace).write_scores(folder, *{TARGETS!r}, method="fisher", rows_a_part=50, progress=told)
"""


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return scored_trace(tmp_path_factory.mktemp("scored"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(scored: Problem, folder: Path) -> dict[str, bytes]:
    fgtrac.open(scored.path).write_scores(folder, *TARGETS, method="fisher", rows_a_part=50)
    return files(folder)


def test_the_parts_together_are_the_full_matrix(scored: Problem, tmp_path: Path) -> None:
    fgtrac.open(scored.path).write_scores(tmp_path / "all", *TARGETS, rows_a_part=50)
    parts = [np.load(path) for path in sorted((tmp_path / "all").glob("scores-*.npy"))]
    assert [len(part) for part in parts] == [50] * 6 + [40]
    test, validation, train = (scored.matrix(role) for role in ("test", "validation", "train"))
    of_class = test[:, scored.labels["test"] == 2].mean(axis=1)
    truth = np.stack([test[:, 5], validation.mean(axis=1), of_class, train[:, 4]], axis=1)
    np.testing.assert_allclose(np.concatenate(parts), truth, rtol=1e-3, atol=1e-5 * np.abs(truth).max())


@pytest.mark.parametrize("parts", [1, 4])
def test_a_killed_job_goes_on_and_ends_as_an_undisturbed_one(scored: Problem, tmp_path: Path, parts: int) -> None:
    command = [sys.executable, "-c", WRITE, str(scored.path), str(tmp_path / "killed")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdin is not None
        assert job.stdout is not None
        for done in range(parts):
            job.stdout.readline()
            if done < parts - 1:
                job.stdin.write("\n")
                job.stdin.flush()
        os.kill(job.pid, signal.SIGKILL)
    left = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("scores-*.npy")}
    assert len(left) == parts
    assert write(scored, tmp_path / "killed") == write(scored, tmp_path / "undisturbed")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("scores-*.npy")}
    assert {name: after[name] for name in left} == left  # not made again
    assert len(after) == 7


def test_a_kept_part_that_is_damaged_or_foreign_is_made_again(scored: Problem, tmp_path: Path) -> None:
    whole = write(scored, tmp_path)
    part = tmp_path / "scores-00001.npy"
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    (tmp_path / "scores-00002.npy").write_bytes(whole["scores-00003.npy"])
    (tmp_path / "scores-00003.sha256").unlink()
    (tmp_path / "scores-00004.npy").write_bytes(b"")
    untouched = (tmp_path / "scores-00000.npy").stat().st_mtime_ns
    assert write(scored, tmp_path) == whole
    assert (tmp_path / "scores-00000.npy").stat().st_mtime_ns == untouched


def test_one_folder_has_no_parts_of_an_engine_beside_parts_without(scored: Problem, tmp_path: Path) -> None:
    before = write(scored, tmp_path)
    opened, how = fgtrac.open(scored.path), {"method": "fisher", "rows_a_part": 50}
    with pytest.raises(ValueError, match="with --engine and now without or the reverse"):
        opened.write_scores(tmp_path, *TARGETS, engine="local:1", **how)
    assert files(tmp_path) == before


def test_a_folder_with_anything_else_in_it_is_refused_and_left_alone(scored: Problem, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and holds no scores"):
        write(scored, tmp_path / "notes")
    assert files(tmp_path / "notes") == {"mine.txt": b"mine"}
    before = write(scored, tmp_path / "scores")
    trace = fgtrac.open(scored.path)
    others = (
        lambda: trace.write_scores(tmp_path / "scores", *TARGETS, method="fisher", rows_a_part=60),
        lambda: trace.write_scores(tmp_path / "scores", *TARGETS, rows_a_part=50),
        lambda: trace.write_scores(tmp_path / "scores", *TARGETS, method="fisher", rows_a_part=50, checkpoints=[10]),
        lambda: trace.write_scores(tmp_path / "scores", *TARGETS[1:], method="fisher", rows_a_part=50),
    )
    for other in others:
        with pytest.raises(ValueError, match="the scores of another query"):
            other()
    assert files(tmp_path / "scores") == before
    with pytest.raises(ValueError, match="at least 1 row"):
        trace.write_scores(tmp_path / "none", *TARGETS, rows_a_part=0)
    assert not (tmp_path / "none").exists()


def test_the_matrix_in_memory_is_the_one_on_disk_with_ids_and_names(scored: Problem, tmp_path: Path) -> None:
    trace, steps = fgtrac.open(scored.path), []
    found = trace.scores(*TARGETS, method="fisher", progress=lambda *step: steps.append(step))
    trace.write_scores(tmp_path / "all", *TARGETS, method="fisher")
    np.testing.assert_allclose(found.scores, np.load(tmp_path / "all" / "scores-00000.npy"), rtol=1e-5, atol=1e-6)
    assert found.scores.dtype == np.float32
    assert list(found.names) == scored.names["train"]
    assert found.targets[0] == "digits:345"
    assert found.labels is not None
    assert found.labels.tolist() == scored.labels["train"].tolist()
    assert steps[-1] == (340 * 4, 340 * 4)
    row = found.row("extra:7")
    assert row == found.row(trace.find("extra:7").id) == scored.names["train"].index("extra:7")
    (one,) = trace.explain("digits:345", method="fisher", k=1).toward
    assert found.scores[found.row(str(one.proponents[0].name)), 0] == pytest.approx(one.proponents[0].score)
    assert str(found) == (
        "scores of 340 training samples toward 4 targets by fisher 0.1, the checkpoints of steps 10, 20, 30; "
        "fidelity not measured"
    )
    with pytest.raises(ValueError, match=r"'digits:345' is not among the 340 training samples"):
        found.row("digits:345")
    assert trace.scores("digits:345", checkpoints=[10]).steps == (10,)


def test_scores_without_a_vault_are_looked_up_by_id(tmp_path: Path) -> None:
    trace = fgtrac.open(scored_trace(tmp_path, vault=False).path)
    found = trace.scores("role:validation")
    assert set(found.names) == {None}
    assert found.row(found.ids[5].tobytes()) == 5


def test_a_worker_killed_in_the_middle_of_a_part_is_replaced_and_the_bytes_are_those_of_one_process(
    scored: Problem, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if not killed:
            (worker, *_) = multiprocessing.active_children()
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            killed.append(done)

    opened, how = fgtrac.open(scored.path), {"method": "fisher", "rows_a_part": 20}
    opened.write_scores(tmp_path / "two", *TARGETS, engine="local:2", progress=kill, **how)
    opened.write_scores(tmp_path / "one", *TARGETS, engine="local:1", **how)
    assert killed[0] < 340
    assert files(tmp_path / "two") == files(tmp_path / "one")
    opened.write_scores(tmp_path / "here", *TARGETS, **how)
    for path in (tmp_path / "here").glob("*.npy"):
        here, there = np.load(path), np.load(tmp_path / "two" / path.name)
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5 * np.abs(there).max())
