"""The engine of one worker: this process, and nothing to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fgtrac.engine.units import R, U, left


class Alone:
    """Units are done in this process, one after the other."""

    name = "local:1"
    workers = 1

    def results(
        self,
        work: Callable[[U], R],
        units: Sequence[U],
        *,
        what: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[int, R]]:
        """As `Engine.results`."""
        for number, unit in enumerate(units):
            try:
                result = work(unit)
            except SystemExit as error:
                raise left(work, error) from None
            if progress is not None:
                progress(number + 1, len(units))
            yield number, result

    def check_shared(self, folder: Path) -> None:
        """What this process sees, this process sees."""
