"""The benchmark `scale` at a hundredth of its size: ten million uses go the whole way, as a billion would."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCALE = ROOT / "benchmarks" / "scale.py"
PAGE, MEASURED = ROOT / "docs" / "scaling.md", ROOT / "docs" / "scaling.json"
FIGURES = [
    "ingest_events_per_s",
    "seal_s",
    "index_events_per_s",
    "verify_events_per_s",
    "peak_gb",
    "history_ms",
    "linearity",
]


def scale(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCALE, *options], capture_output=True, text=True, check=False)


def test_ten_million_uses_go_the_whole_way_within_the_bounds_of_a_billion(tmp_path: Path) -> None:
    kept, page = tmp_path / "scaling.json", tmp_path / "scaling.md"
    shutil.copy(PAGE, page)
    done = scale("--events", "1e7", "--memory", "512M", "--json", "--folder", str(tmp_path), "--into", str(kept))
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert list(figures) == FIGURES
    assert figures["peak_gb"] <= 4
    assert figures["history_ms"] <= 10
    assert figures["linearity"] <= 1.3
    assert all(figures[name] > 0 for name in FIGURES)
    (row,) = json.loads(kept.read_text(encoding="utf-8"))
    assert row["figures"] == figures
    assert row["disk_bytes"]["index"] > 20 * 10**7  # of each use its row
    assert "| seconds | 10^7 |" in page.read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scaling.json", "scaling.md"]  # nothing else is left


def test_a_size_that_the_disk_does_not_hold_is_refused_with_both_numbers(tmp_path: Path) -> None:
    done = scale("--events", "1e15", "--folder", str(tmp_path))
    assert done.returncode == 1
    assert "GB of disk" in done.stderr
    assert "GB free; name a folder on another disk with --folder" in done.stderr
    assert not list(tmp_path.iterdir())


def test_samples_that_cannot_be_used_equally_often_are_refused() -> None:
    done = scale("--events", "1000", "--samples", "300")
    assert done.returncode == 2
    assert "1000 is no multiple of --samples 300" in done.stderr


@pytest.mark.parametrize("number", ["1.5", "many", "1e999"])
def test_a_size_is_a_whole_number(number: str) -> None:
    done = scale("--events", number)
    assert done.returncode == 2
    assert f"'{number}' is no whole number" in done.stderr


def test_the_tables_of_the_page_are_those_of_its_figures(tmp_path: Path) -> None:
    for file in (PAGE, MEASURED):
        shutil.copy(file, tmp_path)
    assert scale("--table", str(tmp_path / "scaling.json")).returncode == 0
    assert (tmp_path / "scaling.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_a_page_without_its_marks_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "scaling.json").write_text(
        (ROOT / "docs" / "scaling.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (tmp_path / "scaling.md").write_text("nothing\n", encoding="utf-8")
    done = scale("--table", str(tmp_path / "scaling.json"))
    assert done.returncode == 1
    assert "put these lines where the table belongs" in done.stderr
    assert (tmp_path / "scaling.md").read_text(encoding="utf-8") == "nothing\n"
