"""Adapters to the frameworks that people train with, one thin file each, loaded when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

_ADAPTERS = ("accelerate", "lightning", "ray_data", "ray_train", "skorch", "trainer")


def __getattr__(name: str) -> Any:
    if name not in _ADAPTERS:
        raise AttributeError(f"module 'fgtrac.frameworks' has no attribute {name!r}; it has {', '.join(_ADAPTERS)}")
    return importlib.import_module(f"fgtrac.frameworks.{name}")
