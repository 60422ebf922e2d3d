"""The explorer by keyboard alone: skip link, search, and every control in an order with the focus in sight."""

from __future__ import annotations

import pytest

from browser.addresses import DEMOS, OF_RUN, SITE, addresses
from browser.chromium import Browser, Page
from browser.explored import Explorer, User

ALL = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"
CONTROLS = f"""[...document.querySelectorAll("{ALL}")]
  .filter((e) => !e.disabled && e.tabIndex >= 0 && e.checkVisibility({{visibilityProperty: true}})).length"""


def check_tab_order(page: Page) -> None:
    """Tab reaches each control once, in the order in which they stand in the page, and one sees where the focus is."""
    controls = page.run(CONTROLS)
    order = page.tab_order(most=controls + 10)
    assert [e["html"] for e in order if not e["visible"]] == []
    assert len(order) == controls, [e["html"] for e in order]


@pytest.mark.parametrize("place", range(len(OF_RUN)), ids=[page or "/" for page in OF_RUN])
@pytest.mark.parametrize("demo", DEMOS)
def test_every_control_of_a_page_is_reached(
    demo: str, place: int, browser: Browser, explorer: Explorer, user: User
) -> None:
    with browser.page(explorer.at(addresses(user.runs, demo)[place])) as page:
        page.wait_until_done()
        check_tab_order(page)


@pytest.mark.parametrize("path", SITE)
def test_every_control_of_a_site_page_is_reached(path: str, browser: Browser, explorer: Explorer) -> None:
    with browser.page(explorer.at(path)) as page:
        page.wait_until_done()
        check_tab_order(page)


def test_the_first_tab_skips_to_the_content(browser: Browser, explorer: Explorer) -> None:
    with browser.page(explorer.at("/run/digits")) as page:
        page.press("Tab")
        box = page.run("(({top, left, width}) => [top, left, width])(document.activeElement.getBoundingClientRect())")
        assert min(box) >= 0, "the skip link is seen when it has the focus"
        assert "skip" in page.run("document.activeElement.innerText").lower()
        page.press("Enter")
        assert page.run("document.activeElement.id") == "content"


@pytest.mark.parametrize("page_of", ["", "/samples", "/log", "/suspects"])
def test_a_slash_focuses_the_search_and_enter_finds_a_sample(
    page_of: str, browser: Browser, explorer: Explorer
) -> None:
    with browser.page(explorer.at(f"/run/digits{page_of}")) as page:
        page.press("/")
        assert page.run("document.activeElement.id") == "find"
        page.type("archive:69")
        page.press("Enter")
        page.wait("location.pathname.startsWith('/run/digits/sample/')")
        assert "archive:69" in page.text("main")
        assert not page.seen().troubles(page.origin)


@pytest.mark.parametrize("path", ["/", "/compare"])
def test_outside_a_run_a_slash_finds_a_run(path: str, browser: Browser, explorer: Explorer) -> None:
    with browser.page(explorer.at(path)) as page:
        page.press("/")
        page.type("igit")
        page.press("Enter")
        page.wait("location.search === '?text=igit'")
        assert page.texts("tbody th a") == ["digits"]


def test_a_slash_in_a_field_is_a_slash(browser: Browser, explorer: Explorer) -> None:
    with browser.page(explorer.at("/run/digits")) as page:
        page.press("/")
        page.type("a/b")
        assert page.run("document.activeElement.value") == "a/b"


def test_who_searches_for_what_is_not_there_is_told_so(browser: Browser, explorer: Explorer) -> None:
    with browser.page(explorer.at("/run/digits")) as page:
        page.press("/")
        page.type("archive:99999999")
        page.press("Enter")
        page.wait("document.title && !location.pathname.endsWith('/digits')")
        assert "archive:99999999" in page.text("main")
        assert page.count("h1") == 1
