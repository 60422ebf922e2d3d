"""`kill -9` at 50 moments of a traced run with two workers: nothing reported is lost, nothing is signed twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from fgtrac.api.audit import audit_trace
from fgtrac.api.prior import trace_id_of
from fgtrac.api.sealing import seal_trace
from fgtrac.commit.signer import Signer
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import MemoryNodes, hash_leaves, root
from fgtrac.tlog.tiles import read_entries
from fgtrac.verify.report import Verdict

UPDATES = 36
BETWEEN, INSIDE = 44, 6


def moments() -> list[tuple[str, int, float, int]]:
    """44 moments between the first and the last update, 6 inside a seal."""
    chance = random.Random(1)
    steps = [1 + n % (UPDATES - 1) for n in range(BETWEEN)]
    between = [(f"between{n}", step, chance.uniform(0, 0.004), 0) for n, step in enumerate(steps)]
    return between + [(f"inside{n}", 0, 0.0, n + 1) for n in range(INSIDE)]


def check_after_kill(path: Path, report: list[str], key: Path) -> None:
    """What the killed process had reported is there; the next seal succeeds, and the auditor finds it whole."""
    said = [line.split() for line in report]
    seal_trace(path, key)
    trace = TraceDir.open(path)
    head = trace.head()
    entries = list(read_entries(trace, 0, head.size, head.size))
    events = [decode_event(entry) for entry in entries]
    writer = events[0]["writer"]
    sealed = [e["seq"] for e in events if e["writer"] == writer]
    flushed = max((int(words[1]) for words in said if words[0] == "flushed"), default=0)
    assert sealed == list(range(len(sealed)))
    assert len(sealed) >= flushed
    steps = {e["step"] for e in events if e["kind"] == "checkpoint"}
    assert {int(words[1]) for words in said if words[0] == "checkpoint"} <= steps
    leaves = hash_leaves(entries)
    for size, signed_root in {(int(w[1]), w[2]) for w in said if w[0] == "signed"}:
        assert root(size, MemoryNodes(leaves[:size])).hex() == signed_root  # and so no other root was signed for it
    report_now = audit_trace(trace, Signer.open(trace_id_of(trace), key).verifier)
    assert report_now.verdict is Verdict.HOLDS, report_now.failures()


def test_a_run_killed_at_fifty_moments_loses_nothing_it_had_reported(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    plan = moments()
    (tmp_path / "moments.json").write_text(json.dumps(plan))
    (tmp_path / "runs").mkdir()
    program = Path(__file__).with_name("traced_runs.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "runs"), str(tmp_path / "moments.json")],
        env={**os.environ, "FGTRAC_KEY": str(key)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=900,
        check=True,
    )
    reports = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert len(reports) == len(plan)
    in_training = [r for n, r in reports.items() if n.startswith("between") and "closed" not in r]
    in_a_seal = [r for r in reports.values() if any(line.startswith("inside") for line in r)]
    assert len(in_training) >= 40
    assert len(in_a_seal) >= 5
    for name, report in reports.items():
        check_after_kill(tmp_path / "runs" / f"{name}.trace", report, key)
