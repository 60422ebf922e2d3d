"""Scores that are recorded on request stand in the log, and whoever has the trace computes them again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fgtrac
from fgtrac.api.adding import adding
from fgtrac.errors import FormatError
from fgtrac.score.target_files import encode_target, target_of
from fgtrac.store.tensor_files import parse_tensors
from fgtrac.verify.report import Report, Verdict
from softmax_traces import LAYER, Problem, scored_trace

WANTED = ("digits:345", "role:validation", ["digits:301", "digits:350", "digits:0"], "class:2:test", "digits:4")


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    return scored_trace(tmp_path)


def verify(problem: Problem) -> Report:
    return fgtrac.open(problem.path).verify(problem.made.signer.public_key.hex())


def test_recorded_scores_are_computed_again_by_verify(problem: Problem) -> None:
    for method in ("tracin", "fisher"):
        done = fgtrac.open(problem.path).record(*WANTED, method=method, key=problem.key)
        assert (done.entries, done.scores) == (5 * 3 * 2, 5 * 3 * 340)  # targets, states, and blocks
    report = verify(problem)
    assert report.verdict is Verdict.HOLDS, report
    (found,) = [f for f in report.findings if f.check == "contributions"]
    assert "10,200 scores" in found.words


def test_a_false_score_toward_a_group_is_refuted(problem: Problem) -> None:
    """The group's gradients are in the log; somebody adds a score that they do not give."""
    group = ["digits:301", "digits:350"]
    fgtrac.open(problem.path).record(group, key=problem.key)
    explainer = fgtrac.open(problem.path)._explainer
    cache = explainer.cache()
    state, rows = cache.states[1], cache.rows("train")
    (path,) = [p for p in explainer.ledger.artifacts if p.startswith("artifacts/targets/")]
    with adding(explainer.trace, problem.key) as to:
        said = {"checkpoint": list(state.ref), "step": state.step, "target": f"artifact:{path}", "method": "tracin"}
        said |= {"block": rows.place(0)[0], "ordinals": rows.ordinals[:1], "scores": np.array([7.5], np.float32)}
        to.recorder.record("contribution", said)
    report = verify(problem)
    (refuted,) = [f for f in report.findings if f.verdict is Verdict.REFUTED]
    assert refuted.check == "contributions"
    assert "7.5" in refuted.words


def test_they_stand_in_each_samples_history(problem: Problem) -> None:
    fgtrac.open(problem.path).record("digits:345", key=problem.key)
    trace = fgtrac.open(problem.path)
    told = [event for event in trace.history("extra:7").events if event.kind == "contribution"]
    target = trace.find("digits:345").id.hex()
    assert [event.details["target"] for event in told] == [f"id:{target}"] * 3
    row = problem.names["train"].index("extra:7")
    truth = [problem.matrix("test", k=k)[row, 5] for k in range(3)]
    np.testing.assert_allclose([event.details["score"] for event in told], truth, rtol=1e-4)


def test_what_the_log_has_is_not_written_again(problem: Problem) -> None:
    first = fgtrac.open(problem.path).record(*WANTED[:3], key=problem.key)
    files = sorted((problem.path / "artifacts/targets").iterdir())
    again = fgtrac.open(problem.path).record(*WANTED, key=problem.key)
    assert (first.entries, again.entries) == (18, 12)
    assert len(list((problem.path / "artifacts/targets").iterdir())) == len(files) + 1 == 2


RECORD = f"""
import sys, fgtrac
def told(done, total):
    print(done, flush=True)
    if done == 3:
        sys.stdin.readline()
trace, key = sys.argv[1:]
fgtrac.open(trace).record(*{WANTED!r}, key=key, progress=told)
"""


def test_a_killed_job_goes_on_and_records_nothing_twice(problem: Problem) -> None:
    command = [sys.executable, "-c", RECORD, str(problem.path), str(problem.key)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        while int(job.stdout.readline()) < 3:
            pass
        os.kill(job.pid, signal.SIGKILL)
    again = fgtrac.open(problem.path).record(*WANTED, key=problem.key)
    assert again.entries == 2 * 3 * 2  # the two targets that were not reached
    report = verify(problem)
    assert report.verdict is Verdict.HOLDS, report
    (found,) = [f for f in report.findings if f.check == "contributions"]
    assert "5,100 scores in 30 entries" in found.words


def test_no_name_of_a_sample_goes_into_the_log(problem: Problem) -> None:
    fgtrac.open(problem.path).record(*WANTED, key=problem.key)
    for path in problem.path.rglob("*"):
        if path.is_file():
            assert b"digits:3" not in path.read_bytes(), path


def test_without_the_traces_key_nothing_is_added(problem: Problem, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in problem.path.rglob("*") if p.is_file()}
    with pytest.raises(FileNotFoundError, match="there is no key at"):
        fgtrac.open(problem.path).record("digits:345", key=tmp_path / "none.pem")
    assert {p: p.read_bytes() for p in problem.path.rglob("*") if p.is_file()} == before


def test_recording_what_factors_give_needs_no_torch(problem: Problem) -> None:
    code = f"import fgtrac, sys; fgtrac.open({str(problem.path)!r}).record('digits:5', key={str(problem.key)!r})"
    code += "; assert not {m for m in sys.modules if m.partition('.')[0] in ('torch', 'safetensors')}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert verify(problem).verdict is Verdict.HOLDS


def test_a_targets_file_gives_its_gradients_back_and_nothing_else(problem: Problem) -> None:
    states = fgtrac.open(problem.path)._explainer.cache().states
    single = [[problem.gradients[k, "test"].rows(slice(3, 4))] for k in range(3)]
    data = encode_target(states, single)
    for k, state in enumerate(states):
        (back,) = target_of(parse_tensors(data), state, (LAYER,))
        np.testing.assert_array_equal(back.whole(), single[k][0].whole())
    with pytest.raises(FormatError, match="no gradient of layer 'output' at step 30"):
        target_of(parse_tensors(encode_target(states[:2], single[:2])), states[2], (LAYER,))
    other = type(LAYER)("other", "factored", 6, 4, True)
    with pytest.raises(FormatError, match="of the layers other"):
        target_of(parse_tensors(data), states[0], (other,))
