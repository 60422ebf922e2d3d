"""How many lines fgtrac adds to a script: those that are marked, and the script runs without them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fgtrac
from fgtrac.verify.report import Verdict

EXAMPLES = Path(__file__).parents[2] / "examples"
MARK = "  # fgtrac"
ADDED = {  # at most
    "plain_loop.py": 5,
    "jax_epochs.py": 5,
    "replay_buffer.py": 5,
    "lightning_cnn.py": 2,
    "skorch_net.py": 2,
    "hf_trainer.py": 2,
    "accelerate_loop.py": 5,
}
ARGUMENTS = {"plain_loop.py": ["1"], "replay_buffer.py": ["900"]}


def run(folder: Path, script: str, *arguments: str) -> str:
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def without(script: str) -> str:
    """The script as it was before: no marked line; a `with` that is one leaves its block behind."""
    lines = []
    for line in script.splitlines():
        if not line.endswith(MARK):
            lines.append(line)
        elif line.lstrip().startswith("with "):
            lines.append(f"{line[: len(line) - len(line.lstrip())]}if True:")
    return "\n".join(lines)


@pytest.mark.parametrize("name", ADDED)
def test_a_script_has_few_lines_of_ours_and_runs_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    script = (EXAMPLES / name).read_text()
    marked = [line for line in script.splitlines() if line.endswith(MARK)]
    assert 1 <= len(marked) <= ADDED[name]
    before = without(script)
    code = re.sub(r'""".*?"""', "", before, flags=re.DOTALL)
    assert "fgtrac" not in code
    told = run(tmp_path, before, *ARGUMENTS.get(name, []))
    assert not (tmp_path / "runs").exists()
    assert run(tmp_path, script, *ARGUMENTS.get(name, [])) == told  # the same losses to the last digit that is printed
    (path,) = (tmp_path / "runs").glob("*.trace")
    trace = fgtrac.open(path)
    assert trace.verify().verdict is Verdict.HOLDS
    assert trace.sample_counts().uses.sum() > 0
