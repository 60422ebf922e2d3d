"""What needs services of its own is left out of `make test`, and run by `make test-services` and by CI."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def recipe(target: str) -> str:
    """What the Makefile runs for a target."""
    lines = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lines, target
    return lines.group(1)


def collected(folder: Path, *arguments: str) -> str:
    """The tests that pytest finds there, told as the Makefile tells it."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_make_test_leaves_the_tests_with_services_out_and_make_test_services_runs_them(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("tests/store/test_here.py", "tests/services/test_there.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("def test_it(): pass\n")
    _python, *run = recipe("test").split()
    assert run[:2] == ["-m", "pytest"]
    options = run[2:]
    assert all(option.startswith("--") for option in options)
    assert "test_here" in collected(tmp_path, *options)
    assert "test_there" not in collected(tmp_path, *options)
    assert recipe("test-services").split()[1:4] == ["-m", "pytest", "tests/services"]
    assert "test_there" in collected(tmp_path, "tests/services")
    assert (ROOT / "tests/services/conftest.py").exists()


def test_ci_runs_both() -> None:
    steps = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make ")]
    assert steps == ["make lint", "make test", "make test-services"]
