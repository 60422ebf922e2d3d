"""Tests against real services on loopback, which `make test-services` installs; `make test` leaves them out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from services.anvil import ANVIL
from services.started import Services, started
from services.witness import PROGRAM


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """None of these tests is skipped for want of a service."""
    for program in (ANVIL, PROGRAM, "openssl"):
        if shutil.which(program) is None:
            pytest.exit(f"{program} is not there; make test-services installs what these tests need", returncode=1)


@pytest.fixture(scope="session")
def services(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A chain, a time-stamping authority and a witness, for all tests that do not stop them."""
    with started(tmp_path_factory.mktemp("round") / "services") as running:
        yield running
