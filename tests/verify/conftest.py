"""One true bundle of every claim, made once for all tests of bundles."""

from __future__ import annotations

import pytest

from fgtrac.tlog.note import Verifier
from proofs import true_bundles


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Verifier, dict[str, bytes]]:
    """The verifier and the bundles by claim."""
    return true_bundles(tmp_path_factory.mktemp("bundles"))
