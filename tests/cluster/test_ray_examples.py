"""The examples under Ray run on a cluster of this machine, and leave traces that hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fgtrac
from fgtrac.verify.report import Verdict

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "trace", "key", "says"),
    [("ray_train.py", "ray", "TensorDataset:7", "used"), ("ray_data.py", "ray-data", "readings:7", "stage 'windows'")],
)
def test_an_example_runs_and_its_trace_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trace: str, key: str, says: str
) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nholds: " in done.stdout
    found = fgtrac.open(tmp_path / "runs" / f"{trace}.trace")
    assert found.verify().verdict is Verdict.HOLDS
    assert says in str(found.history(key))
    assert found.sample_counts().uses.sum() > 0
