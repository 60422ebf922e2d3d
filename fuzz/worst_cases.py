"""Inputs of about a megabyte made to cost each parser much: seconds of the processor, and megabytes at the most.

    python fuzz/worst_cases.py [PARSER...]

A line for each case that costs more than a quarter of what it may; ends with 1 where one costs more than it may.
Memory is what the process grew by, as Linux counts it (VmHWM in proc(5), set back between cases).
"""

from __future__ import annotations

import gc
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from all_parsers import TARGETS
from target import Target

MAX_S = 1.0
MAX_MB = 64.0


def costs(target: Target) -> Iterator[tuple[int, float, float]]:
    """(number of the case, seconds, megabytes). What takes too long is timed again: other processes may be to blame."""
    for number, data in enumerate(target.worst()):
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the high water mark is the present size again
        before, seconds = _status("VmRSS"), _seconds(target, data)
        megabytes = (_status("VmHWM") - before) / 1024
        yield number, seconds if seconds < MAX_S else min(seconds, _seconds(target, data)), megabytes


def _seconds(target: Target, data: bytes) -> float:
    began = time.process_time()
    target.check(data)
    return time.process_time() - began


def _status(name: str) -> int:
    """A figure of this process, in kB."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def main(names: list[str]) -> int:
    gc.freeze()  # modules are no garbage: to look through them each time would take as long as the parsers do
    failed = seen = 0
    highest = [0.0, 0.0]
    for name in names or TARGETS:
        for number, seconds, megabytes in costs(TARGETS[name]):
            seen += 1
            highest = [max(highest[0], seconds), max(highest[1], megabytes)]
            is_too_much = seconds > MAX_S or megabytes > MAX_MB
            failed += is_too_much
            if is_too_much or seconds > MAX_S / 4 or megabytes > MAX_MB / 4:
                words = "  TOO MUCH" if is_too_much else ""
                print(f"{name}, case {number}: {seconds:.2f} s, {megabytes:.0f} MB{words}")
    print(f"{seen} cases of {len(names or TARGETS)} parsers: at most {highest[0]:.2f} s and {highest[1]:.0f} MB")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
