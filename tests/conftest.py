"""One thread for every computation, here and in child processes: a sum in another order has other last bits."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when numpy and torch are loaded, which is later

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background, and then in every child
    signal.signal(signal.SIGINT, signal.default_int_handler)

RECURSION_LIMIT = sys.getrecursionlimit()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tests that import web3 by themselves raise it for all others."""
    sys.setrecursionlimit(RECURSION_LIMIT)


@pytest.fixture(autouse=True)
def _one_environment() -> Iterator[None]:
    """Some libraries put a copy into `os.environ` (datasets, behind a map in several processes): rich, which keeps the
    object that was there when it was imported, would no longer see what tests set."""
    environment = os.environ
    yield
    os.environ = environment  # noqa: B003


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the cache of whoever runs it."""
    os.environ["FGTRAC_CACHE"] = str(tmp_path_factory.mktemp("cache"))
