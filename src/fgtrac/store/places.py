"""A trace for reading, wherever it lies: a folder on this machine, or `s3://BUCKET/PREFIX/NAME.trace`."""

from __future__ import annotations

import os
from pathlib import Path

from fgtrac.store.far_trace import FarTrace
from fgtrac.store.object_storage import Objects, is_url
from fgtrac.store.range_reads import CACHE_BYTES, MOST_BYTES
from fgtrac.store.trace_dir import TraceDir

ONCE_BYTES = 2 * MOST_BYTES  # kept of a trace far away by who reads each file once


def trace_of_unit(path: str) -> TraceDir:
    """The trace that a unit of work names, for reading each file once: whoever made the unit has looked at it."""
    return FarTrace(Objects(path), ONCE_BYTES) if is_url(path) else TraceDir(Path(path))


def open_to_read(path: str | os.PathLike[str], cache_bytes: int = CACHE_BYTES) -> TraceDir:
    """FileNotFoundError where there is no trace, FormatError or ValueError for what is none, StorageError where object
    storage does not answer. Of a trace far away `cache_bytes` are kept of what was read."""
    return FarTrace.open(Path(path), cache_bytes) if is_url(path) else TraceDir.open(Path(path))
