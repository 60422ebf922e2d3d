"""Plain data for JSON and for templates, out of whatever a page's answer holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST = 10_000  # characters of one text: a key of 10 MB is no page's


def plain(value: Any) -> Any:
    """The same as dicts, lists, text, numbers, booleans and None: bytes as hex, what is no finite number as its name
    ("nan", "inf", "-inf"), which JSON has no number for, and of a text longer than MOST its beginning and an ellipsis.
    TypeError for anything else."""
    if isinstance(value, str):
        return value if len(value) <= MOST else value[:MOST] + "…"
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    raise TypeError(f"{type(value).__name__} is no plain data")
