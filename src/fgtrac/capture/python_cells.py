"""Python objects in a column: of one kind each, so that Arrow, which takes some for others, keeps them apart."""

from __future__ import annotations

import datetime as dt
import numbers
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np

Path = tuple[Any, ...]  # to a value in cells of lists and dicts
PLAIN = (str, bytes, int, float, bool, Decimal)
KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("bool", (bool, np.bool_)),
    ("duration", (dt.timedelta, np.timedelta64)),
    ("number", (numbers.Number, np.number)),
    ("text", (str,)),
    ("bytes", (bytes, bytearray, memoryview)),
    ("clock", (dt.datetime,)),
    ("date", (dt.date,)),
)


def mixed_kinds(values: Iterable[Any], is_missing: Callable[[Any], Any]) -> list[str]:
    """The kinds of values that stand together in a place of the cells where all should be of one; none where they are.

    Arrow makes the same of "x" and b"x", and drops the time zone of instants among wall clocks and the time of moments
    among dates. `is_missing` says whether a scalar is a missing value.
    """
    values = list(values)
    types = set(map(type, values)) - {type(None)}
    if len(types) <= 1 and types <= set(PLAIN):
        return []
    found: dict[Path, set[str]] = {}
    _collect(values, (), found, is_missing)
    return next((sorted(kinds) for kinds in found.values() if len(kinds) > 1), [])


def _collect(values: Iterable[Any], path: Path, found: dict[Path, set[str]], is_missing: Callable[[Any], Any]) -> None:
    for value in values:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                _collect([inner], (*path, name), found, is_missing)
        elif isinstance(value, np.ndarray):
            some = value.reshape(-1)
            _collect(some if value.dtype == object else some[:1], (*path, None), found, is_missing)
        elif isinstance(value, list | tuple):
            _collect(value, (*path, None), found, is_missing)
        elif not is_missing(value):
            found.setdefault(path, set()).add(_kind(value))


def _kind(value: Any) -> str:
    kind = next((kind for kind, types in KINDS if isinstance(value, types)), type(value).__name__)
    if kind == "clock":
        return "wall clock" if value.tzinfo is None else "instant"
    return "time of a zone" if kind == "time" and value.tzinfo is not None else kind
