"""Tests against real services on loopback, which `make test-services` installs; `make test` leaves them out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.started import Services, missing, started


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """None of these tests is skipped for want of a service."""
    if words := missing():
        pytest.exit(words, returncode=1)


@pytest.fixture(scope="session")
def services(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A chain, a time-stamping authority and a witness, for all tests that do not stop them."""
    with started(tmp_path_factory.mktemp("round") / "services") as running:
        yield running
