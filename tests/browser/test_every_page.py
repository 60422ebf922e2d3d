"""Every page of both demos' traces: nothing goes wrong, nothing from outside, and everybody can use it."""

from __future__ import annotations

import pytest

from browser.addresses import DAMAGED, DEMOS, OF_RUN, SITE, addresses
from browser.chromium import Browser, Page
from browser.explored import Explorer, User

NARROW = 360
# Rules of axe that are not held to, each with its reason. There are none.
EXCEPTIONS: dict[str, str] = {}
# The cells of tables with many columns that somebody on a narrow screen does not see, or sees as a column of letters.
OUTSIDE = """[...document.querySelectorAll('main table')]
  .filter((table) => table.querySelectorAll('thead th').length > 3 && table.checkVisibility())
  .flatMap((table) => [...table.querySelectorAll('tbody th, tbody td')])
  .filter((cell) => { const box = cell.getBoundingClientRect(); return box.width < 120 || box.right > innerWidth; })
  .map((cell) => cell.textContent.trim().slice(0, 60))"""


def check_page(page: Page, *, refused: bool = False) -> None:
    """A whole page in which nothing went wrong; where it says no, the browser's own line about that is no fault."""
    troubles = page.seen().troubles(page.origin)
    if refused:
        troubles = [t for t in troubles if not t.startswith("Failed to load resource: the server responded with a st")]
    assert not troubles, page.url
    assert page.count("h1") == 1, page.url
    assert page.count("main") == 1, page.url
    assert page.run("document.title"), page.url
    assert page.run("document.documentElement.lang") == "en", page.url
    assert page.count("[style], [onclick], script:not([src])") == 0, page.url


def check_accessible(page: Page) -> None:
    found = [f for f in page.axe() if f["rule"] not in EXCEPTIONS]
    assert not found, (page.url, found)


def check_for_everybody(path: str, browser: Browser, explorer: Explorer) -> None:
    """The page at an address is whole and accessible in both colour schemes, and fits a narrow screen."""
    with browser.page(scheme="light") as page:
        assert page.go(explorer.at(path)) == 200, page.text()
        page.wait_until_done()
        check_page(page)
        check_accessible(page)
        page.tell("scheme", scheme="dark")
        check_accessible(page)
        page.tell("size", width=NARROW, height=700)
        wide = page.run("document.documentElement.scrollWidth")
        assert wide <= NARROW, f"{path} is {wide} px wide on a screen of {NARROW}"
        outside = page.run(OUTSIDE)
        assert not outside, f"{path}: off a screen of {NARROW} px, or broken letter by letter: {outside[:5]}"


@pytest.mark.parametrize("place", range(len(OF_RUN)), ids=[page or "/" for page in OF_RUN])
@pytest.mark.parametrize("demo", DEMOS)
def test_a_page_of_a_demo_is_whole_and_accessible(
    demo: str, place: int, browser: Browser, explorer: Explorer, user: User
) -> None:
    check_for_everybody(addresses(user.runs, demo)[place], browser, explorer)


@pytest.mark.parametrize("path", SITE)
def test_a_page_of_the_site_is_whole_and_accessible(path: str, browser: Browser, explorer: Explorer) -> None:
    check_for_everybody(path, browser, explorer)


@pytest.mark.parametrize("name", DAMAGED)
def test_every_page_of_a_damaged_trace_says_so_in_a_whole_page(
    name: str, browser: Browser, explorer: Explorer, user: User
) -> None:
    with browser.page() as page:
        for path in addresses(user.runs, "digits"):
            status = page.go(explorer.at(path.replace("/run/digits", f"/run/{name}", 1)))
            assert status in (200, 400, 404, 409, 500), path
            page.wait_until_done()
            check_page(page, refused=status != 200)
            assert "Traceback" not in page.text()
            assert page.count(".verdict-holds") == 0
        check_accessible(page)
