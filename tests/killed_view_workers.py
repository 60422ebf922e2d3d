"""A unit of building tables at which its first worker kills itself: workers import this by its name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from fgtrac.query.view_ranges import RangeUnit, Written, build_range


def kill_a_worker_once(unit: RangeUnit) -> Written:
    """As `build_range`; whoever does unit 1 first is killed in the middle of it."""
    mark = Path(unit.folder, "killed.tmp")
    if unit.number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return build_range(unit)
