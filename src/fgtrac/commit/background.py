"""Plain seals while training goes on: one at a time, on a thread of their own, so that no step waits for the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class BackgroundSealer:
    """Runs `seal` beside the caller. Whatever goes wrong is raised by the next `wait`, in the caller's thread."""

    def __init__(self, seal: Callable[[], object]) -> None:
        self._seal = seal
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.cpu_s = 0.0

    def start(self) -> None:
        """Begin a seal; the one before it must have been waited for."""
        if self._thread is not None:
            raise RuntimeError("a seal is under way already; wait for it first")
        self._thread = threading.Thread(target=self._run, name="fgtrac-seal", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the seal under way, if there is one, and raise what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            self._seal()
        except BaseException as error:  # noqa: BLE001 - not swallowed: `wait` raises it in the caller's thread
            self._error = error
        self.cpu_s += time.thread_time()
