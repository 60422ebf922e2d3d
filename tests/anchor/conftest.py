"""A chain in process for all tests of the contract; each has a trace of its own on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from chains import TestChain

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_chain(tmp_path_factory: pytest.TempPathFactory) -> TestChain:
    from chains import TestChain

    return TestChain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def chain(shared_chain: TestChain) -> Iterator[TestChain]:
    """The chain, what a test does to it is undone."""
    snapshot = shared_chain.tester.take_snapshot()
    shared_chain.liar.start_afresh()
    yield shared_chain
    shared_chain.tester.revert_to_snapshot(snapshot)


@pytest.fixture
def trace_id() -> bytes:
    return next(_numbers).to_bytes(16)
