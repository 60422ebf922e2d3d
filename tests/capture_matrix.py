"""The table of docs/capture-matrix.md, from the tests that carry the mark `matrix`: `make capture-matrix` runs them all
and writes the page; `rows_of_tests` only collects them, for the test that the page is up to date."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/capture-matrix.md"
LIBRARIES = (
    "torch", "torch_geometric", "lightning", "transformers", "accelerate", "skorch", "torchdata", "webdataset",
    "datasets", "pandas", "polars", "pyarrow", "scikit-learn",
)  # fmt: skip
PARTS = (
    "DataLoader", "Streams", "StatefulDataLoader", "PyG", "Updates", "Lightning", "HF Trainer", "Accelerate", "skorch",
    "DDP", "Resume", "pandas", "polars", "pyarrow", "HF datasets", "scikit-learn", "Content",
)  # fmt: skip
HEAD = """# What was compared with the truth

Each row is a way to feed a model or to prepare its data, and a test in which each sample's value encodes which one it
is: the batches themselves tell what was trained on, or what a row was made from, and the trace must say the same. The
page is written by `make capture-matrix`, which runs these tests; `make test` runs them too, and fails where the page
lacks one. `workers` are those of the loader that the case was run with; `attribution` is how sure the trace says to be
of the pairing of batches and updates ([entries](spec/entries.md)), where the test looks at it.
"""


@dataclass(slots=True)
class Row:
    """One case: the worker counts it is run under, what is said of it, and what became of its tests."""

    workers: set[int] = field(default_factory=set)
    said: dict[str, str] = field(default_factory=dict)
    tests: int = 0
    outcomes: set[str] = field(default_factory=set)

    def cells(self, case: str) -> list[str]:
        """As the page has them, but for the outcome."""
        workers = ", ".join(map(str, sorted(self.workers)))
        return [case, workers, self.said.get("attribution", ""), self.said.get("note", "")]


Rows = dict[tuple[str, str], Row]


class Gathering:
    """A plugin that gathers the marked tests and their outcomes."""

    def __init__(self) -> None:
        self.rows: Rows = {}
        self._of: dict[str, Row] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("matrix"):
                row = self.rows.setdefault((mark.args[0], mark.args[1]), Row())
                row.said |= {name: str(value) for name, value in mark.kwargs.items()}
                row.tests += 1
                params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
                row.workers |= {params["workers"]} if type(params.get("workers")) is int else set()
                self._of[item.nodeid] = row

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self._of.get(report.nodeid)
        if row is not None and (report.when == "call" or report.outcome != "passed"):
            row.outcomes.add(report.outcome)


def rows_of_tests(*, run: bool = False) -> tuple[Rows, int]:
    """The rows, in the order of the tests, and pytest's exit code; with `run` the tests are made."""
    gathering = Gathering()
    more = [] if run else ["--collect-only"]
    code = pytest.main(["-q", "-m", "matrix", "-p", "no:cacheprovider", *more, str(ROOT / "tests")], [gathering])
    return gathering.rows, int(code)


def table(rows: Rows) -> list[str]:
    """The page's tables, without what became of the tests."""
    lines = []
    for part in [*PARTS, *sorted({part for part, _case in rows} - set(PARTS))]:
        mine = [(case, row) for (of, case), row in rows.items() if of == part]
        if mine:
            lines += ["", f"## {part}", "", "| case | workers | attribution | remark |", "|---|---|---|---|"]
            lines += [f"| {' | '.join(row.cells(case))} |" for case, row in mine]
    return lines


def page(rows: Rows) -> str:
    """The whole page, of tests that have been run."""
    failed = [f"{part}: {case}" for (part, case), row in rows.items() if row.outcomes - {"passed", "skipped"}]
    skipped = [f"{part}: {case}" for (part, case), row in rows.items() if "skipped" in row.outcomes]
    told = f"All {len(rows)} cases ({sum(row.tests for row in rows.values())} tests) agree with the truth"
    if failed:
        told = f"Of {len(rows)} cases these do **not** agree with the truth: {'; '.join(failed)}"
    if skipped:
        told += f"; not run: {'; '.join(skipped)}"
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return "\n".join([HEAD, f"{told}. Run with {versions}.", *table(rows)]) + "\n"


def collect() -> list[str]:
    """`table` of the tests as they are now, found in a process of its own: this one may be a test."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        done = subprocess.run([sys.executable, __file__, str(out)], capture_output=True, text=True, check=False)
        if not out.exists():
            raise RuntimeError(f"the tests cannot be collected: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        lines: list[str] = json.loads(out.read_text())
    return lines


def main(arguments: Iterable[str]) -> int:
    """Write the page; with a file's name only the table, collected, as JSON."""
    for out in arguments:
        rows, code = rows_of_tests()
        if code == 0:
            Path(out).write_text(json.dumps(table(rows)))
        return code
    rows, code = rows_of_tests(run=True)
    if rows:
        PAGE.write_text(page(rows))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
