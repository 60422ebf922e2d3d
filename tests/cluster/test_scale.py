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
MEMORY, ABOVE_GB = "128M", 0.3  # for two workers: 30 bytes a use, of which the columns alone have 21 on disk
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
    return subprocess.run([sys.executable, SCALE, *options], capture_output=True, text=True, check=False, timeout=300)


def test_ten_million_uses_go_the_whole_way_within_bounds_of_time_memory_and_disk(tmp_path: Path) -> None:
    kept, page = tmp_path / "scaling.json", tmp_path / "scaling.md"
    shutil.copy(PAGE, page)
    options = ["--events", "1e7", "--engine", "local:2", "--memory", MEMORY, "--folder", str(tmp_path)]
    done = scale(*options, "--json", "--into", str(kept))
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert list(figures) == FIGURES
    # On two cores that do nothing else each is above two million; here others may be at work.
    for rate in ("ingest_events_per_s", "index_events_per_s", "verify_events_per_s"):
        assert figures[rate] >= 3e5, rate
    assert figures["history_ms"] <= 10
    # A hundredth takes the processes' start most of its time, so that 0.4 is usual: twice the cost an event shows.
    assert figures["linearity"] <= 0.8
    (row,) = json.loads(kept.read_text(encoding="utf-8"))
    assert row["figures"] == figures
    memory, disk = row["stage_peak_gb"], row["disk_bytes"]
    assert figures["peak_gb"] >= max(memory.values())
    # Beside the act's own process and two workers, each as one that opens a trace.
    for stage in ("full seal", "verify"):
        assert memory[stage] - 3 * memory["open"] <= ABOVE_GB, stage
    assert 20 * 10**7 < disk["index"] < 22 * 10**7  # of each use its row
    assert 4 * 10**7 < disk["log"] < 5 * 10**7
    assert disk["index"] + disk["log"] <= disk["peak"] <= 40 * 10**7  # runs beside the columns, each file once
    assert "| seconds | 10^7 |" in page.read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scaling.json", "scaling.md"]  # nothing else is left


def test_a_size_that_the_disk_does_not_hold_is_refused_with_both_numbers(tmp_path: Path) -> None:
    done = scale("--events", "1e15", "--folder", str(tmp_path))
    assert done.returncode == 1
    assert "GB of disk" in done.stderr
    assert "GB free; name a folder on another disk with --folder" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--samples", "300"], "--events 1000 is no multiple of --samples 300"),
        (["--samples", "-10"], "'-10' is no whole number above 0"),
        (["--samples", "0"], "'0' is no whole number above 0"),
        (["--events", "1.5"], "'1.5' is no whole number above 0"),
        (["--events", "many"], "'many' is no whole number above 0"),
        (["--events", "1e999"], "'1e999' is no whole number above 0"),
        (["--memory", "4"], "4 is 4 bytes, below 1M"),
        (["--engine", "locall"], "'locall' is no engine"),
        (["--folder", "nowhere"], "--folder nowhere is no folder"),
        (["--into", "nowhere/scaling.json"], "nowhere/scaling.md"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line_before_anything_is_recorded(
    options: list[str], words: str
) -> None:
    done = scale("--events", "1000", *options)
    assert done.returncode in (1, 2)
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


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
