"""Scores for the pages: worked out beside them by one thread, which opens traces of its own, so that no page waits."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from fgtrac.api.trace import Trace, open_trace
from fgtrac.web.beside import Beside, Finding

MAX_OPEN = 2  # an opened trace keeps what it has read of its factors
Progress = Callable[[int, int], None]


class Scoring:
    """Answers from the factors of traces, each found out once for a state of the trace. `key` names the key whose
    signatures count."""

    def __init__(self, key: str | None = None) -> None:
        self._key = key
        self._beside = Beside("fgtrac scores")
        self._opened: dict[Path, tuple[Hashable, Trace]] = {}  # the thread's own

    def of(
        self, path: Path, state: Hashable, what: str, ask: Callable[[Trace, Progress], Any], patience_s: float
    ) -> Finding:
        """What `ask` finds in the trace at `path`, as far as it is found after `patience_s`. `what` names the question,
        `state` changes with the trace."""

        def make(progress: Progress) -> Any:
            return ask(self._open(path, state), progress)

        return self._beside.of((path, what), state, make, patience_s)

    def stop(self) -> None:
        """Begin nothing more."""
        self._beside.stop()

    def _open(self, path: Path, state: Hashable) -> Trace:
        held = self._opened.pop(path, None)
        if held is None or held[0] != state:
            held = state, open_trace(path, key=self._key)
        self._opened[path] = held
        for old in list(self._opened)[:-MAX_OPEN]:
            del self._opened[old]
        return held[1]
