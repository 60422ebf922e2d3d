"""The stage of attacks/, recorded once, and what was answered to every lie there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from lying import Stage

    return Stage(tmp_path_factory.mktemp("attacks"))


@pytest.fixture(scope="session")
def told(stage: Any) -> Callable[[str], list[Any]]:
    """The acts of one script, by its name; each is told once."""
    import importlib

    return cache(lambda name: list(importlib.import_module(name).tell(stage)))
