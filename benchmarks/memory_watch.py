"""What this process and all below it have in memory, and what a folder takes on disk, looked at 20 times a second."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

LOOK_S = 0.05


class Watch:
    """Looks at the memory of this process and all below it, and at the disk that a folder takes, until it is closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._closed = threading.Event()
        self.memory: list[tuple[float, int]] = []  # when, and bytes
        self.disk_bytes = 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()
        self._thread.join()

    def peak_gb(self, start: float, stop: float) -> float:
        """The most between two moments, and at the look before them."""
        return max((size for when, size in self.memory if start - LOOK_S <= when <= stop), default=0) / 1e9

    def _look(self) -> None:
        looks = 0
        while not self._closed.wait(LOOK_S):
            self.memory.append((time.monotonic(), sum(map(resident_bytes, tree_of(os.getpid())))))
            if looks % 40 == 0:
                self.disk_bytes = max(self.disk_bytes, folder_bytes(self._folder))
            looks += 1


def tree_of(process: int) -> Iterator[int]:
    """A process and all that it and its children have started."""
    yield process
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            below = task.read_text(encoding="ascii").split()
        except OSError:
            continue  # it has ended meanwhile
        for child in below:
            yield from tree_of(int(child))


def resident_bytes(process: int) -> int:
    """What a process has in memory, what it maps of files included; nothing once it has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def folder_bytes(folder: Path) -> int:
    """What the files in a folder take."""
    found = 0
    for place, _folders, names in os.walk(folder):
        for name in names:
            try:
                found += os.stat(os.path.join(place, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # it was renamed or removed meanwhile
    return found
