"""How fast a data set is registered, and in how much memory: ten million rows, from the call to the last entry.

Each figure comes from a process of its own. `row_ids_per_s` and `keyed_ids_per_s` are samples a second of one whole
`run.register` of rows that are named by their numbers, under public and under keyed ids; `text_ids_per_s` the same of
keyed ids for a tenth of them with texts as keys. `peak_gb` is the most memory that any of these processes had, with
what it imports. Then the public ones are sealed, with an index, and verified: seconds and memory of each. At last the
content pass of `content_pass.py`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fgtrac
from content_pass import content_figures
from harness import report

ROWS = 10_000_000
CASES = {"row": ("public", ROWS), "keyed": ("keyed", ROWS), "text": ("keyed", ROWS // 10)}


class Numbered:
    """A data set of so many rows, which nobody reads."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> int:
        return row


def register(folder: Path, case: str) -> dict[str, float]:
    """Register the rows of a case in a new trace; what that took."""
    scheme, rows = CASES[case]
    options: dict[str, Any] = {"key": [f"images/{row:08}.png" for row in range(rows)]} if case == "text" else {}
    run = fgtrac.start_run(folder / case, key=folder / "key.pem", ids=scheme)
    start = time.perf_counter()
    run.register(Numbered(rows), role="train", name="numbers", content=False, **options)
    run._recorder.flush()
    seconds, peak = time.perf_counter() - start, peak_gb()
    start = time.perf_counter()
    run.close()
    return {"ids_per_s": rows / seconds, "peak_gb": peak, "seal_s": time.perf_counter() - start, "seal_gb": peak_gb()}


def verify(folder: Path, case: str) -> dict[str, float]:
    """Read a registered trace again."""
    start = time.perf_counter()
    trace = fgtrac.open(folder / f"{case}.trace", key=str(folder / "key.pem"))
    verdict = trace.verify().verdict
    seconds = time.perf_counter() - start
    if verdict != "holds":
        raise SystemExit(f"the trace of {case} is not verified: {verdict}")
    start = time.perf_counter()
    name = "numbers:7" if case != "text" else 'numbers:key:"images/00000007.png"'
    if "registered" not in trace.history(name).text():
        raise SystemExit(f"{name} is not found by its name")
    return {"verify_s": seconds, "verify_gb": peak_gb(), "history_ms": (time.perf_counter() - start) * 1e3}


def peak_gb() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_a_process(task: str, folder: Path, case: str) -> dict[str, float]:
    """The figures of one task, in a process of its own."""
    command = [sys.executable, __file__, task, str(folder), case]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {case: in_a_process("register", folder, case) for case in CASES}
        read = in_a_process("verify", folder, "row")
        vault_bytes = (folder / "row.vault").stat().st_size / ROWS
    for case, took in found.items():
        figures[f"{case}_ids_per_s"] = took["ids_per_s"]
    figures["peak_gb"] = max(took["peak_gb"] for took in found.values())
    figures["vault_bytes_per_row"] = vault_bytes
    figures |= {name: found["row"][name] for name in ("seal_s", "seal_gb")} | read
    figures["content_read_share"] = content_figures()["content_read_share"]
    report("register", figures)


if __name__ == "__main__":
    if sys.argv[1:2] in (["register"], ["verify"]):
        print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])))
    else:
        main()
