"""The run behind a framework's callback: one that the caller opened, or one at a path, open while a Trainer works."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fgtrac.api.run import Run, start_run
from fgtrac.errors import CaptureError

Where = Run | str | os.PathLike[str] | Callable[[], Path]  # the last one is asked when the trace begins
Version = tuple[int, int]


class LastingRun:
    """Opens, continues and closes one trace. A run that the caller opened is the caller's to close.

    At a path, the run is begun by the first `open` and ended by `close`, so that the trace is whole behind each call
    that trains, evaluates or predicts; the next such call goes on in it, with the data sets that are known.
    """

    def __init__(self, where: Where, options: Mapping[str, Any]) -> None:
        """`options` are those of `start_run`: TypeError for others. ValueError for options to a run that is open."""
        known = list(inspect.signature(start_run).parameters)[1:]
        if unknown := sorted(options.keys() - set(known)):
            raise TypeError(f"{', '.join(unknown)}= is no option of start_run(); these are: {', '.join(known)}")
        self._given = where if isinstance(where, Run) else None
        if self._given is not None and options:
            raise ValueError(f"{', '.join(options)}= was given beside a run that is open; give it to start_run()")
        self._path = where
        self._options = dict(options)
        self._closed: Run | None = None  # the newest that was closed
        self.run: Run | None = None

    @property
    def at_hand(self) -> Run | None:
        """The run that is recorded into, or would be: one that the caller opened."""
        return self.run or self._given

    @property
    def is_own(self) -> bool:
        """Whether the run is opened and closed here."""
        return self._given is None

    def open(self, *, step: int | None = None, origin: str | None = None) -> Run:
        """The run, begun or continued where it is not open: with `step`, behind that many updates, which the trace
        `origin` holds.

        Raises ValueError where another trace lies at the path; errors of `start_run`.
        """
        if self.run is not None:
            return self.run
        if self._given is not None:
            self.run = self._given
            self._check_process(self._given)
            if step is not None and self._given.step != step:
                self._say_other_step(self._given, step)
            return self._given
        if callable(self._path):
            self._path = self._path()
        options = dict(self._options)
        if step is not None:
            options |= {"step": step, "resume": self._exists()}
        elif self._closed is not None:
            options |= {"step": greatest_step(self._closed), "resume": True}
        run = start_run(self._path, **options)  # type: ignore[arg-type]
        if origin is not None and options["resume"] and origin_of(run) != origin:
            run.close(finished=False)
            raise ValueError(
                f"the checkpoint belongs to the trace {origin}, and {run.path} is {origin_of(run)}; give the path of "
                "that trace, or a new one"
            )
        if self._closed is not None:
            run._registry.continue_from(self._closed._registry)
        self.run = run
        return run

    def close(self, *, finished: bool) -> None:
        """Let go of the run; seal it, if it was opened here."""
        run, self.run = self.run, None
        if run is not None and self.is_own:
            self._closed = run
            run.close(finished=finished)

    def check_version(self, name: str, found: str, first: Version, last: Version) -> None:
        """Say so where the framework's version is not known. CaptureError in a strict run."""
        parts = found.split(".")
        known = len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit()
        if known and first <= (int(parts[0]), int(parts[1])) <= last:
            return
        versions = f"{'.'.join(map(str, first))} to {'.'.join(map(str, last))}"
        self.miss(f"this is {name} {found}, and fgtrac knows {versions}: batches may be missing; install one of those")

    def miss(self, what: str) -> None:
        """Something could not be recorded: a `gap` entry and a RuntimeWarning say so, CaptureError in a strict run."""
        self.open()._recorder.miss(what, CaptureError(what))

    @staticmethod
    def warn(what: str) -> None:
        """Something is not as the caller seems to think, and nothing is lost."""
        warnings.warn(f"fgtrac: {what}", RuntimeWarning, stacklevel=3)

    def _exists(self) -> bool:
        path = Path(self._path)  # type: ignore[arg-type]
        return path.exists() if path.suffix == ".trace" else path.with_name(path.name + ".trace").exists()

    def _check_process(self, run: Run) -> None:
        if run._pid != os.getpid():
            raise CaptureError(
                f"the run {run.path.name} was begun in process {run._pid}, and process {os.getpid()} trains; give the "
                "callback a path instead"
            )

    def _say_other_step(self, run: Run, step: int) -> None:
        self.miss(
            f"training goes on from step {step}, and the run {run.path.name} counts on from {run.step}; begin it with "
            f"start_run(..., resume=True, step={step})"
        )


def greatest_step(run: Run) -> int:
    """Updates of the optimizer that made the most: going on from there, nothing is undone."""
    return max(run.step, run._grounding.greatest_step)


def origin_of(run: Run) -> str:
    """What tells a trace from others: the origin of its log."""
    return run.vkey.partition("+")[0]
