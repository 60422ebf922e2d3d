"""The README's ten lines are the example's, and they run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/ten_lines.py"


def test_the_readme_shows_the_example_as_it_stands() -> None:
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    _caption, _, code = EXAMPLE.read_text().partition("\n\n")
    assert shown == [code]


def test_the_ten_lines_run_and_verify(tmp_path: Path) -> None:
    environment = os.environ | {"FGTRAC_KEY": str(tmp_path / "key.pem")}
    run = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("holds\n")
    assert "TensorDataset" in run.stdout
    assert (tmp_path / "runs/first.trace/checkpoint").is_file()


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for page in ("README.md", "docs/design.md", "attacks/README.md", "CHANGELOG.md"):
        links = re.findall(r"\]\(([^)#:]+)\)|\]: (\S+)", (ROOT / page).read_text())
        targets = [first or second for first, second in links if not (first or second).startswith("http")]
        missing = [t for t in targets if not ((ROOT / page).parent / t).exists()]
        assert not missing, f"{page} links to {missing}"
