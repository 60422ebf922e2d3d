"""The second verifier, loaded by its path as one file: it is no part of the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

VERIFIER = Path(__file__).parents[2] / "verifier" / "check_bundle.py"


@pytest.fixture(scope="session")
def other() -> ModuleType:
    """verifier/check_bundle.py as a module."""
    spec = importlib.util.spec_from_file_location("check_bundle", VERIFIER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
