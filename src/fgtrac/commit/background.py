"""Plain seals while training goes on, and pushes behind them: on a thread of their own, and seldom, so that no step
waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SHARE = 1e-3  # of the time that seals may take
LONGEST = 12  # intervals that one seal has the next wait at most


class BackgroundSealer:
    """Runs `seal` beside the caller, soon after it was asked for; what is asked for meanwhile is one more seal. The
    next begins an interval later, or so much later that the processor time of this one is a thousandth of it, up to 12
    intervals.

    Whatever goes wrong is raised in the caller's thread, by the next `check` or `finish`. `cpu_s` is the processor
    time that seals have taken.
    """

    def __init__(self, seal: Callable[[], object], interval_s: float) -> None:
        self._seal = seal
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._wanted = False
        self._is_last = False
        self._error: BaseException | None = None
        self._due = float("-inf")
        self.cpu_s = 0.0

    def ask(self, *, now: bool = False, pause_s: float = 0.0) -> None:
        """Seal as soon as the interval since the last seal has passed, and `pause_s` seconds from now, in which more
        may be asked for; or with `now` without waiting for either."""
        with self._lock:
            if not self._wanted:
                self._due = max(self._due, time.monotonic() + pause_s)
            self._wanted = True
            if now:
                self._hurry.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="fgtrac-seal", daemon=True)
                self._thread.start()

    def check(self) -> None:
        """Raise what the last seal raised."""
        with self._lock:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def finish(self, *, drop: bool = False) -> None:
        """Do what was asked for now, wait for it, and raise what it raised; with `drop`, only what was begun."""
        with self._lock:
            self._is_last = True
            self._wanted = self._wanted and not drop
            self._hurry.set()
            thread = self._thread
        if thread is not None:
            thread.join()
        self._is_last = False
        self._hurry.clear()
        self.check()

    def _run(self) -> None:
        while True:
            self._hurry.wait(max(0.0, self._due - time.monotonic()))
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                self._wanted = False
                if not self._is_last:
                    self._hurry.clear()
            began, began_s = time.monotonic(), time.thread_time()
            self._due = began + self._interval_s
            try:
                self._seal()
            except BaseException as error:  # noqa: BLE001 - not swallowed: raised in the caller's thread
                self._error = error
            took_s = time.thread_time() - began_s
            self.cpu_s += took_s
            self._due = began + min(max(self._interval_s, took_s / SHARE), LONGEST * self._interval_s)
