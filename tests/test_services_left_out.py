"""What needs services, a browser or a cluster is left out of `make test`, and run by targets of its own and by CI."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("folder", ["services", "browser", "cluster"])
def test_make_test_leaves_these_tests_out_and_their_own_target_runs_them(folder: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("tests/store/test_here.py", f"tests/{folder}/test_there.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("def test_it(): pass\n")
    _python, *run = recipe("test").split()
    assert run[:2] == ["-m", "pytest"]
    options = run[2:]
    assert all(option.startswith("--") for option in options)
    assert "test_here" in collected(tmp_path, *options)
    assert "test_there" not in collected(tmp_path, *options)
    assert recipe(f"test-{folder}").split()[1:4] == ["-m", "pytest", f"tests/{folder}"]
    assert "test_there" in collected(tmp_path, f"tests/{folder}")
    assert (ROOT / f"tests/{folder}/conftest.py").exists()


@pytest.mark.parametrize(
    ("target", "tools"),
    [
        ("services", ["npm", "openssl"]),
        ("browser", ["npm", "chromium"]),
        ("cluster", ["ceph", "ceph-mon", "ceph-osd", "radosgw"]),
    ],
)
def test_a_target_whose_tools_are_missing_names_the_first_and_installs_nothing(
    target: str, tools: list[str], tmp_path: Path
) -> None:
    make, shell = shutil.which("make"), shutil.which("sh")
    assert make
    assert shell
    for name in ("make", "sh"):
        (tmp_path / name).symlink_to({"make": make, "sh": shell}[name])
    ready = f".venv/{target}-ready"
    command = [make, "--no-print-directory", "--dry-run", "-W", ".venv/ready", "-o", ".venv/ready", ready]
    script = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    looks = [line for line in script if line.startswith("for tool in ")]
    done = subprocess.run([shell, "-c", looks[0]], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == f"make test-{target} needs {tools[0]} on PATH\n"
    assert looks[0] == script[0]
    assert all(f" {tool}" in looks[0] for tool in tools)


def test_ci_runs_all() -> None:
    steps = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make ")]
    assert steps == ["make lint", "make test", "make test-services", "make test-browser", "make test-cluster"]
