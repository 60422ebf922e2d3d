"""What benchmarks see of memory and disk: all processes below, each file once, or an error."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import memory_watch

MB = 1 << 20
HOLD = f"held = b'x' * {64 * MB}; print(len(held), flush=True); input()"


def test_what_processes_below_hold_is_seen_and_gone_when_they_end(tmp_path: Path) -> None:
    watch = memory_watch.Watch(tmp_path)
    try:
        before = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as held:
            assert held.stdout is not None
            held.stdout.readline()
            own = memory_watch.resident_bytes(os.getpid())
            assert held.pid in memory_watch.tree_of(os.getpid())
            time.sleep(4 * memory_watch.LOOK_S)
            held.communicate("\n", timeout=60)
        assert held.pid not in memory_watch.tree_of(os.getpid())
        assert watch.peak_gb(before, time.monotonic()) >= (own + 64 * MB) / 1e9
        assert watch.peak_gb(before - 20, before - 10) == 0
    finally:
        watch.close()


def test_a_file_with_two_names_takes_its_place_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "values").write_bytes(b"x" * MB)
    os.link(tmp_path / "folder" / "values", tmp_path / "second")
    (tmp_path / "link").symlink_to(tmp_path / "second")
    assert memory_watch.folder_bytes(tmp_path) < 1.5 * MB
    (tmp_path / "other").write_bytes(b"x" * MB)
    assert memory_watch.folder_bytes(tmp_path) >= 2 * MB


@pytest.mark.parametrize("seen", ["memory", "disk_bytes", "peak_gb"])
def test_where_looking_ended_there_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: str) -> None:
    looked = threading.Event()

    def fails(_: int) -> int:
        looked.set()
        raise MemoryError("no more")

    monkeypatch.setattr(memory_watch, "resident_bytes", fails)
    watch = memory_watch.Watch(tmp_path)
    assert looked.wait(60)
    watch.close()
    with pytest.raises(RuntimeError, match=r"what looked at memory and disk ended: MemoryError\('no more'\)"):
        watch.peak_gb(0, 1) if seen == "peak_gb" else getattr(watch, seen)


def test_where_children_are_not_told_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(RuntimeError, match="CONFIG_PROC_CHILDREN"):
        memory_watch.Watch(tmp_path)
