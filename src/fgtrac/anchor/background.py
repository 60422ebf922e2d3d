"""Anchoring beside the training: for each service one thread, which brings it the newest head and tries again.

A thread for each, and not one for all: where a service hangs, the others have their heads in time.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from fgtrac.anchor.anchored import Anchored
from fgtrac.anchor.service import SignedHead
from fgtrac.anchor.transport import exchanges_cpu_s

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0


class BackgroundAnchor:
    """Calls `anchor` with the newest head that was submitted, on a daemon thread of its own, until that is over.

    Between two tries it waits: about a second, then twice as long each time, up to five minutes, up to half of it less
    at random; a newer head takes the place of the one that waits. `anchor` raises nothing. `cpu_s` is the processor
    time that it has taken.
    """

    def __init__(
        self, anchor: Callable[[SignedHead], Anchored], name: str, *, first_pause_s: float | None = None
    ) -> None:
        self._anchor = anchor
        self._first_pause_s = FIRST_PAUSE_S if first_pause_s is None else first_pause_s
        self._changed = threading.Condition()
        self._head: SignedHead | None = None  # what is still to be anchored
        self._last: Anchored | None = None
        self._failures = 0
        self._due = 0.0
        self._is_trying = self._closing = self._given_up = False
        self._chance = random.Random()  # a generator of its own: the training's draws stay as they are
        self.cpu_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"fgtrac-{name}", daemon=True)
        self._thread.start()  # now: an interpreter that is shutting down starts none

    def submit(self, signed: SignedHead, *, now: bool = False) -> None:
        """Anchor this head, unless a larger one waits; with `now`, do not wait after a failure."""
        with self._changed:
            if self._head is None or self._head.head.size <= signed.head.size:
                self._head, self._last = signed, None
            if now:
                self._due = 0.0
            self._changed.notify_all()

    def is_done(self, size: int) -> bool:
        """Whether a head of at least this size has its receipt."""
        with self._changed:
            return self._last is not None and self._last.size >= size and self._last.error is None

    def result(self, size: int, deadline: float) -> Anchored | None:
        """What became of a head of at least this size: as soon as that is over, or nothing is tried any more until
        `deadline` (of `time.monotonic`), what the last try said; None where none has ended yet."""

        def is_over() -> bool:
            if self._last is not None and self._last.size >= size and self._last.is_over:
                return True
            return not self._is_trying and self._due > deadline

        with self._changed:
            self._changed.wait_for(is_over, max(0.0, deadline - time.monotonic()))
            return self._last if self._last is not None and self._last.size >= size else None

    def close(self) -> None:
        """Try once more, now, where something is left; then end. Does not wait."""
        with self._changed:
            self._closing = True
            self._due = 0.0
            self._changed.notify_all()

    def give_up(self) -> None:
        """Try nothing any more: what is under way is the last."""
        with self._changed:
            self._given_up = True

    def join(self, deadline: float) -> bool:
        """Wait for the end until `deadline`; whether it has come."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (turn := self._next()) is not None:
            signed, is_last_try = turn
            result = self._anchor(signed)
            self.cpu_s = time.thread_time() + exchanges_cpu_s()
            self._take(signed, result, is_last_try)

    def _next(self) -> tuple[SignedHead, bool] | None:
        """The head to try next, when it is due, and whether it is tried no more; None where nothing is left to do."""
        with self._changed:
            while self._head is None or time.monotonic() < self._due:
                if self._head is None and self._closing:
                    return None
                self._changed.wait(None if self._head is None else self._due - time.monotonic())
            if self._given_up:
                return None
            self._is_trying = True
            return self._head, self._closing

    def _take(self, signed: SignedHead, result: Anchored, is_last_try: bool) -> None:
        with self._changed:
            self._is_trying = False
            self._last = result
            if result.is_over or is_last_try:
                self._failures = 0
                self._head = None if self._head is signed else self._head
            else:
                pause_s = min(self._first_pause_s * 2 ** min(self._failures, 30), LONGEST_PAUSE_S)
                self._due = 0.0 if self._closing else time.monotonic() + pause_s * self._chance.uniform(0.5, 1.0)
                self._failures += 1
            self._changed.notify_all()
