"""A trace for reading, wherever it lies: a folder on this machine, or `s3://BUCKET/PREFIX/NAME.trace`."""

from __future__ import annotations

import os
from pathlib import Path

from fgtrac.store.far_trace import FarTrace
from fgtrac.store.object_storage import is_url
from fgtrac.store.trace_dir import TraceDir


def open_to_read(path: str | os.PathLike[str]) -> TraceDir:
    """FileNotFoundError where there is no trace, FormatError or ValueError for what is none, StorageError where object
    storage does not answer."""
    return FarTrace.open(Path(path)) if is_url(path) else TraceDir.open(Path(path))
