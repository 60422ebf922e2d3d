"""What a scored training records is computed again by `verify`, whatever the method, the layers and the numbers, and
on another machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

import fgtrac
from fgtrac.verify.report import Finding, Verdict


def verified(problem: Any) -> Finding:
    report = fgtrac.open(problem.folder / "run.trace", key=str(problem.folder / "key.pem")).verify()
    assert report.verdict is Verdict.HOLDS, [f.words for f in report.failures()]
    (finding,) = [f for f in report.findings if f.check == "contributions"]
    return finding


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "bfloat16"},
        {"dtype": "float32", "layer": "all"},
        {"method": "tracin-cos", "layer": ["0", "4"]},
        {"method": "fisher"},
        {"method": "fisher ggn 0.03", "ggn": True},
        {"method": "ekfac", "layer": "all"},
        {"method": "ekfac", "dtype": "bfloat16"},
        {"method": "fisher", "dtype": "float32", "layer": "all"},
    ],
    ids=lambda options: " ".join(str(v) for v in options.values()) or "as it is",
)
def test_what_a_scored_training_records_is_verified(problem: Any, options: dict[str, Any]) -> None:
    with problem.start() as run:
        problem.score_with(run, **options)
        problem.fit(run, problem.model())
    assert "270 scores in 3 entries were computed again" in verified(problem).words


def test_states_that_a_budget_displaced_keep_their_scores_verifiable(problem: Any) -> None:
    with problem.start(keep="budget:1") as run:
        problem.score_with(run)
        problem.fit(run, problem.model())
    displaced = [e for e in problem.events("checkpoint") if e["rule"].startswith("dropped: displaced")]
    assert displaced
    scored = {event["step"] for event in problem.events("contribution")}
    assert {event["step"] for event in displaced} <= scored
    assert f"{90 * len(scored)} scores" in verified(problem).words


def test_damping_that_rounding_overrides_cannot_be_told(problem: Any) -> None:
    assert "the damping is too weak" in untold(problem, method="fisher 1e-15", layer="all")


def test_eigenvectors_that_another_blas_would_choose_otherwise_cannot_be_told(problem: Any) -> None:
    problem.train = TensorDataset(torch.eye(8)[torch.arange(96) % 8], torch.arange(96) // 4 % 3)
    assert "eigenvalues are too near to equal" in untold(problem, method="ekfac", layer="0")


def untold(problem: Any, **options: Any) -> str:
    """Why the scores of a training cannot be told."""
    with problem.start() as run:
        problem.score_with(run, **options)
        problem.fit(run, problem.model())
    report = fgtrac.open(problem.folder / "run.trace", key=str(problem.folder / "key.pem")).verify()
    (finding,) = report.failures()
    assert (finding.check, finding.verdict) == ("contributions", Verdict.CANNOT_TELL)
    return str(finding.words)


@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        ("tracin", "float16"),
        ("tracin-cos", "float32"),
        ("fisher", "bfloat16"),
        ("fisher 0.001", "float32"),
        ("ekfac", "float16"),
    ],
)
def test_another_processor_and_more_threads_come_to_the_same(problem: Any, method: str, dtype: str) -> None:
    with problem.start() as run:
        problem.score_with(run, method=method, layer="all", dtype=dtype)
        problem.fit(run, problem.model())
    trace, key = problem.folder / "run.trace", problem.folder / "key.pem"
    for other in ({"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"}):
        command = [
            sys.executable,
            "-c",
            "from fgtrac.cli.main import main; main()",
            "verify",
            str(trace),
            "--key",
            str(key),
            "--json",
        ]
        done = subprocess.run(command, env=os.environ | other, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["verdict"] == "holds"
