"""What scoring costs: estimated before the first pass, measured after the last, and how much time is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from fgtrac.score.kernel import Progress

MANY_ROWS = 1 << 20  # take a second or more to be named


@dataclass(slots=True)
class Cost:
    """For one kept checkpoint, as estimated: `seconds` of the passes over all scored rows, of putting their `files` on
    disk (`seconds_a_file` each) and of contributions; `size_bytes` of the files. The first checkpoint also reads all
    rows for their labels. As measured: `checkpoints` that were scored, and their seconds and bytes together."""

    seconds: float
    size_bytes: int
    rows: int
    files: int = 0
    seconds_a_file: float = 0.0
    checkpoints: int = 0
    measured_seconds: float = 0.0
    measured_bytes: int = 0

    @property
    def estimate(self) -> str:
        """What is said before the first pass."""
        parts = f"passes, {self.files} files, contributions"
        return f"about {self.seconds:.3g} s ({parts}) and {in_words(self.size_bytes)} for {self.rows:,} samples"

    @property
    def measurement(self) -> str:
        """What is said after the last."""
        n = max(1, self.checkpoints)
        return (
            f"{self.measured_seconds / n:.3g} s and {in_words(self.measured_bytes // n)} each, measured over "
            f"{self.checkpoints} (estimated: {self.seconds:.3g} s and {in_words(self.size_bytes)})"
        )

    def add(self, seconds: float, size_bytes: int) -> None:
        """One more checkpoint."""
        self.checkpoints += 1
        self.measured_seconds += seconds
        self.measured_bytes += size_bytes


def in_words(size_bytes: int) -> str:
    """A size for people."""
    for unit, word in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {word}"
    return f"{size_bytes} bytes"


def say(words: str) -> None:
    """One line on stderr."""
    print(f"fgtrac: {words}", file=sys.stderr)


class TimeLeft:
    """Progress on stderr, rewritten in place at most five times a second, with the time left; for terminals only.

    Its first call says what was done before: the time left follows from what has been done since.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, did: str = "scored") -> None:
        self._clock = clock
        self._did = did
        self._began = self._last = clock()
        self._before: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if self._before is None:
            self._began, self._before = now, done
        if now - self._last < 0.2 and done < total:
            return
        self._last = now
        left = (now - self._began) * (total - done) / max(1, done - self._before)
        end = "\n" if done >= total else ""
        print(f"\rfgtrac: {self._did} {done:,} of {total:,} rows, about {left:.0f} s left ", end=end, file=sys.stderr)


def shown(progress: Progress | None) -> Progress:
    """Where progress goes: to the caller's function, else to a terminal, else nowhere."""
    if progress is not None:
        return progress
    return TimeLeft() if sys.stderr.isatty() else (lambda done, total: None)


def shown_naming(rows: int) -> Progress | None:
    """Where the progress of naming so many rows goes: to a terminal, where it takes a while."""
    return TimeLeft(did="named") if rows >= MANY_ROWS and sys.stderr.isatty() else None
