"""Work beside the pages: one thread that does one thing after the other, and can be told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class StoppedError(Exception):
    """The explorer ends while something is under way."""


class _Worker(threading.Thread):
    """The thread of a Background."""


def have_ended(within_s: float) -> bool:
    """Whether the threads of every Background that was told to stop are over by then."""
    until = time.monotonic() + within_s
    workers = [thread for thread in threading.enumerate() if isinstance(thread, _Worker)]
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))
    return not any(worker.is_alive() for worker in workers)


class Background:
    """A thread, begun with the first thing that there is to do. It ends with the process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: list[tuple[float, Callable[[], None]]] = []  # not before that time on the monotonic clock
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def do(self, work: Callable[[], None], not_before: float = 0.0) -> None:
        """Do it once the things that were asked for before, and may be done by now, are done."""
        with self._turn:
            self._waiting.append((not_before, work))
            if self._thread is None:
                self._thread = _Worker(target=self._go_on, name=self._name, daemon=True)
                self._thread.start()
            self._turn.notify()

    def stop(self) -> None:
        """Begin nothing more; what is under way ends when it next calls `go_on`."""
        with self._turn:
            self._stopped = True
            self._turn.notify()

    def go_on(self) -> None:
        """StoppedError where the explorer ends."""
        if self._stopped:
            raise StoppedError

    def _go_on(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except StoppedError:
                return

    def _next(self) -> Callable[[], None] | None:
        with self._turn:
            while not self._stopped:
                now = time.monotonic()
                ready = [one for one in self._waiting if one[0] <= now]
                if ready:
                    self._waiting.remove(ready[0])
                    return ready[0][1]
                self._turn.wait(min((at - now for at, _ in self._waiting), default=None))
        return None
