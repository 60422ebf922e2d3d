"""The README's ten lines are the example's, and they run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/ten_lines.py"


def test_the_readme_shows_the_example_as_it_stands() -> None:
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    _caption, _, code = EXAMPLE.read_text().partition("\n\n")
    assert shown == [code]


def test_the_ten_lines_run_and_so_do_the_commands_below_them(tmp_path: Path) -> None:
    environment = os.environ | {"FGTRAC_KEY": str(tmp_path / "key.pem")}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    printed = run(str(EXAMPLE))
    assert printed.startswith("holds\n")
    assert "TensorDataset:7" in printed
    commands = re.findall(r"^    fgtrac (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        run("-c", "from fgtrac.cli.main import main; main()", *shlex.split(command))
    assert (tmp_path / "mine.json").stat().st_size < 20_000


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for page in ("README.md", "docs/design.md", "docs/anchors.md", "attacks/README.md", "CHANGELOG.md"):
        links = re.findall(r"\]\(([^)#:]+)\)|\]: (\S+)", (ROOT / page).read_text())
        targets = [first or second for first, second in links if not (first or second).startswith("http")]
        missing = [t for t in targets if not ((ROOT / page).parent / t).exists()]
        assert not missing, f"{page} links to {missing}"
