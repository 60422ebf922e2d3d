"""Units of work whose process is killed in their middle, at their first write of a whole file, the first time each."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtrac.engine.units import Engine
from fgtrac.store import durable


@dataclass(frozen=True, slots=True)
class Killed:
    """A unit, its work, and the file that says that it was begun."""

    work: Callable[[Any], Any]
    unit: Any
    mark: str


def kill_once(killed: Killed) -> Any:
    """Do a unit; killed at its first rename where nobody has begun it before."""
    rename = durable._rename
    if not Path(killed.mark).exists():
        Path(killed.mark).touch()
        durable._rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    try:
        return killed.work(killed.unit)
    finally:
        durable._rename = rename


class KillingEngine:
    """An engine that kills the worker of the first unit of each kind."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        self.workers, self.name = engine.workers, engine.name

    def results(
        self, work: Callable[[Any], Any], units: Sequence[Any], *, what: str, progress: Any = None
    ) -> Iterator[tuple[int, Any]]:
        """As `Engine.results`."""
        marks = [f"{getattr(unit, 'kind', work.__name__)}-0" for unit in units]
        killed = [Killed(work, unit, str(self._folder / mark)) for unit, mark in zip(units, marks, strict=True)]
        yield from self._engine.results(kill_once, killed, what=what, progress=progress)

    def check_shared(self, folder: Path) -> None:
        """As `Engine.check_shared`."""
        self._engine.check_shared(folder)
