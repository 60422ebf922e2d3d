"""The benchmark of queries runs, at a small size, to its last figure, and says what the issue asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "query.py"
ASKED = ("open_s", "history_ms", "role_query_warm_s", "build_events_per_s", "peak_gb", "page_ms")


def test_it_runs_to_its_last_figure(tmp_path: Path):
    small = {"FGTRAC_QUERY_SAMPLES": "3000", "FGTRAC_QUERY_EPOCHS": "3", "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(BENCHMARK), "--json"]
    done = subprocess.run(command, env=os.environ | small, capture_output=True, text=True, timeout=120, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["benchmark"] == "query"
    assert all(said["figures"][name] > 0 for name in ASKED)
    assert not list(tmp_path.iterdir())
