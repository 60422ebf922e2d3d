"""What the examples that declare their uses leave in the log, against what their own arrays say."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import fgtrac

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))


def test_each_epoch_of_the_compiled_scan_used_each_point_once() -> None:
    # In a process of its own: JAX warns of every fork that its process makes from then on.
    code = "import json, runpy, sys; told = runpy.run_path(sys.argv[1]); print(json.dumps(told['orders'].tolist()))"
    command = [sys.executable, "-c", code, str(EXAMPLES / "jax_epochs.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    orders, epochs = json.loads(done.stdout.splitlines()[-1]), done.stdout.count("mean loss")
    trace = fgtrac.open("runs/jax.trace")
    last = {row: step for step, rows in enumerate(orders, 1) for row in rows}
    updates = len(orders)
    for row in (0, 7, 959):
        uses = [event for event in trace.history(f"points:{row}").events if event.kind == "used"]
        assert [event.details["epoch"] for event in uses] == list(range(epochs))
        assert uses[-1].step == updates * (epochs - 1) + last[row]
        assert {event.details["attribution"] for event in uses} == {"declared"}


def test_every_replayed_step_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Counter[int] = Counter()
    use = fgtrac.Run.use

    def counting(run: fgtrac.Run, samples: np.ndarray, **said: object) -> None:
        drawn.update(samples.tolist())
        use(run, samples, **said)

    monkeypatch.setattr(sys, "argv", ["replay_buffer.py", "1000"])
    monkeypatch.setattr(fgtrac.Run, "use", counting)
    runpy.run_path(str(EXAMPLES / "replay_buffer.py"))
    samples = fgtrac.open("runs/cartpole.trace").sample_counts()
    assert {str(name): int(n) for name, n in zip(samples.names, samples.uses, strict=True) if n} == {
        f"transitions:{step}": n for step, n in drawn.items()
    }
