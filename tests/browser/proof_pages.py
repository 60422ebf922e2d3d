"""A page of `fgtrac export html`, opened from its file in a browser without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser.chromium import Browser, Page


@contextmanager
def opened(browser: Browser, path: Path, key: str = "", **options: Any) -> Iterator[Page]:
    """The page from a file, offline, once it has told its verdict. It asked for nothing but itself."""
    with browser.page(path.as_uri() + (f"#key={key}" if key else ""), offline=True, **options) as page:
        wait(page)
        yield page
        seen = page.seen()
        assert not [*seen.console, *seen.errors, *seen.failed, *seen.dialogs]
        assert {r["url"].partition("#")[0] for r in seen.requests if not r["url"].startswith("blob:")} == {
            path.as_uri()
        }


def wait(page: Page) -> None:
    page.wait("no => document.getElementById('verdict').dataset.verdict !== no", "unchecked")


def verdict(page: Page) -> str:
    return str(page.run("document.getElementById('verdict').dataset.verdict"))


def check_again(page: Page) -> str:
    """Presses the button; the verdict."""
    page.run("document.getElementById('verdict').dataset.verdict = 'unchecked'")
    page.click("#ask button")
    wait(page)
    return verdict(page)
