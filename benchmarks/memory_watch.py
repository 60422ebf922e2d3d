"""What this process and all below it have in memory, and what a folder takes on disk, looked at 20 times a second."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

LOOK_S = 0.05
LOOKS_A_DISK = 40  # looks at memory for one at the disk


class Watch:
    """Looks at the memory of this process and all below it, and at the disk that a folder takes, until it is closed.

    RuntimeError where that cannot be seen here, and, of what was seen, where looking ended by an error: this process
    alone is no figure.
    """

    def __init__(self, folder: Path) -> None:
        check_children()
        self._folder = folder
        self._closed = threading.Event()
        self._memory: list[tuple[float, int]] = []  # when, and bytes
        self._disk_bytes = 0
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()
        self._thread.join()

    @property
    def memory(self) -> list[tuple[float, int]]:
        """When it was looked at, and how many bytes there were."""
        self._check()
        return self._memory

    @property
    def disk_bytes(self) -> int:
        """The most that the folder took."""
        self._check()
        return self._disk_bytes

    def peak_gb(self, start: float, stop: float) -> float:
        """The most between two moments, and at the look before them."""
        return max((size for when, size in self.memory if start - LOOK_S <= when <= stop), default=0) / 1e9

    def _check(self) -> None:
        if self._error is not None:
            raise RuntimeError(f"what looked at memory and disk ended: {self._error!r}") from self._error

    def _look(self) -> None:
        looks = 0
        try:
            while not self._closed.wait(LOOK_S):
                self._memory.append((time.monotonic(), sum(map(resident_bytes, tree_of(os.getpid())))))
                if looks % LOOKS_A_DISK == 0:
                    self._disk_bytes = max(self._disk_bytes, folder_bytes(self._folder))
                looks += 1
        except Exception as error:  # noqa: BLE001  whoever asks for what was seen hears of it
            self._error = error


def check_children() -> None:
    """RuntimeError where the system does not say which processes a process has started."""
    if not Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").exists():
        raise RuntimeError(
            "/proc does not say which processes a process has started, so nobody can tell what memory they have; "
            "measure under a Linux kernel with CONFIG_PROC_CHILDREN"
        )


def tree_of(process: int) -> Iterator[int]:
    """A process and all that it and its children have started."""
    yield process
    try:
        tasks = os.listdir(f"/proc/{process}/task")
    except OSError:
        return  # it has ended meanwhile
    for task in tasks:
        try:
            below = Path(f"/proc/{process}/task/{task}/children").read_text(encoding="ascii").split()
        except OSError:
            continue  # so has this thread
        for child in below:
            yield from tree_of(int(child))


def resident_bytes(process: int) -> int:
    """What a process has in memory, what it maps of files included; nothing once it has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def folder_bytes(folder: Path) -> int:
    """What the files in a folder take; one with several names takes it once."""
    found: dict[tuple[int, int], int] = {}
    for place, _folders, names in os.walk(folder):
        for name in names:
            try:
                said = os.lstat(os.path.join(place, name))
            except FileNotFoundError:
                continue  # it was renamed or removed meanwhile
            found[said.st_dev, said.st_ino] = said.st_blocks * 512
    return sum(found.values())
