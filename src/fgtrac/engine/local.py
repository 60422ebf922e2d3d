"""The engine of this machine: as many processes as it is told, none of them before there are two units."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgtrac.engine.alone import Alone
from fgtrac.engine.units import R, U

if TYPE_CHECKING:
    from fgtrac.engine.pool import Pool


def cores() -> int:
    """How many cores this process may use: those it is bound to, and no more than its container's share of time."""
    bound = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return min(bound, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or `max`: no share is set
        return bound


class LocalPool:
    """So many processes of this machine. A unit that is the only one is done in this process."""

    def __init__(self, workers: int) -> None:
        self.name, self.workers = f"local:{workers}", workers
        self._pool: Pool | None = None

    def results(
        self,
        work: Callable[[U], R],
        units: Sequence[U],
        *,
        what: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[int, R]]:
        """As `Engine.results`."""
        if len(units) == 1:
            return Alone().results(work, units, what=what, progress=progress)
        if self._pool is None:
            from fgtrac.engine.pool import Pool  # with Python's own, which loads sockets

            self._pool = Pool(self.workers, max(1, cores() // self.workers))
        return self._pool.results(work, units, what, progress)

    def check_shared(self, folder: Path) -> None:
        """Processes of one machine see the same folders."""

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.close()
