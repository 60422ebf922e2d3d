"""What `make test-browser` makes once: a browser, a user's traces, and the explorer over them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from browser.chromium import Browser, missing, running_browser
from browser.explored import Explorer, User, exploring, make_runs


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """None of these tests is skipped for want of a browser."""
    if words := missing():
        pytest.exit(words, returncode=1)


@pytest.fixture(scope="session")
def browser(installed: None) -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="session")
def user(installed: None, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Somebody who ran both demos; see `make_runs`. Nobody changes these traces: tests that do take copies."""
    somebody = User(tmp_path_factory.mktemp("home"))
    make_runs(somebody)
    return somebody


@pytest.fixture(scope="session")
def explorer(user: User) -> Iterator[Explorer]:
    """`fgtrac ui` over all of the user's traces. What it said on stderr is looked at when all tests are done."""
    with exploring(user, user.runs) as running:
        yield running
        assert running.process.poll() is None, running.said
    assert not [line for line in running.said if "Traceback" in line or "Error" in line], running.said
