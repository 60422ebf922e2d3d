"""Saying in the log which ranks of a training that is over ended without leaving."""

from __future__ import annotations

import os
from pathlib import Path

from fgtrac.api.adding import await_idle
from fgtrac.api.last_start import has_end
from fgtrac.api.sealing import seal_trace
from fgtrac.store.trace_dir import TraceDir


def say_lost(path: str | os.PathLike[str], key: str | os.PathLike[str] | None = None) -> None:
    """Where a training of several processes is over and has no end: seal what its journal holds, and say in the log
    which ranks were lost. Nothing where every rank left, or that was said before.

    FileNotFoundError or FormatError where there is no trace, CaptureError where it is still being recorded, otherwise
    raises as `fgtrac seal`.
    """
    trace = TraceDir.open(Path(path))
    await_idle(trace.journal)
    if not has_end(trace):
        seal_trace(trace.path, None if key is None else Path(key))
