"""The other verifiers: the second one, loaded by its path as one file, and that of the HTML page, under node."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from page_verifier import PageVerifier, has_node, running

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


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageVerifier | None]:
    """The page's verifier; None where there is no node, which test_page_agrees.py says."""
    if not has_node():
        yield None
        return
    with running(tmp_path_factory.mktemp("page")) as verifier:
        yield verifier
