"""No write, sync, rename or removal in a trace happens outside store/durable.py: the kernel's own count agrees."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

CALLS = {
    "write": ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range"),
    "fsync": ("fsync", "fdatasync", "sync_file_range"),
    "rename": ("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    "unlink": ("unlink", "unlinkat"),
}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace")
def test_every_change_of_a_trace_goes_through_durable(tmp_path: Path) -> None:
    log = tmp_path / "strace.txt"
    names = ",".join(name for group in CALLS.values() for name in group)
    program = Path(__file__).with_name("traced_writes.py")
    command = ["strace", "-f", "-y", "-s", "0", "-e", f"trace={names}", "-o", str(log), sys.executable, str(program)]
    done = subprocess.run(
        [*command, str(tmp_path / "run")],
        env={**os.environ, "FGTRAC_KEY": str(tmp_path / "key.pem")},
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        check=True,
    )
    counted = json.loads(done.stdout.splitlines()[-1])
    seen: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        call = re.match(r"\d+ +(\w+)\((.*)", line)
        if call is None or not re.search(r"run\.trace[/>\"]", call[2]):
            continue
        if "AT_REMOVEDIR" in call[2]:
            continue  # an empty folder: durable.remove_empty
        group = next(name for name, members in CALLS.items() if call[1] in members)
        seen[group] += 1
    assert min(seen.values()) > 0
    assert dict(seen) == counted
