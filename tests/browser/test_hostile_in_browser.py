"""A hostile trace in a real browser: no script of it runs, no dialog opens, nothing outside is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from browser.chromium import Browser
from browser.explored import Explorer, User, exploring
from hostile_trace import MARKED, TRACE_NAME, make_hostile_trace

NAME = quote(TRACE_NAME.removesuffix(".trace"), safe="")
MOST = 20  # pages
STARTS = ("/", f"/run/{NAME}/samples?role=validation", f"/compare?a={NAME}&b={NAME}")
LINKS = """[...document.querySelectorAll("a[href]:not([download])")]
  .map((link) => new URL(link.getAttribute("href"), location).href)"""


@pytest.fixture(scope="module")
def explorer(user: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    folder = tmp_path_factory.mktemp("hostile")
    make_hostile_trace(folder, long=False)
    with exploring(user, folder, "--key", folder / "key.pem") as running:
        yield running
    assert not [line for line in running.said if "Traceback" in line], running.said


def test_nothing_of_a_hostile_trace_runs_or_is_loaded(browser: Browser, explorer: Explorer) -> None:
    waiting = [explorer.at(path) for path in STARTS]
    known = set(waiting)
    shown = 0
    with browser.page() as page:
        while waiting:
            url = waiting.pop(0)
            status = page.go(url)
            page.wait_until_done()
            troubles = page.seen().troubles(explorer.origin)
            assert status == 200, url
            assert not troubles, url
            assert page.run("document.title").endswith("fgtrac"), url
            assert page.count("main svg[onload], img[onerror], main script:not([src^='/static/'])") == 0, url
            assert page.run("document.body.checkVisibility()"), url
            shown += MARKED in page.text()
            for link in page.run(LINKS):
                to = link.partition("#")[0]
                assert to.startswith(explorer.origin + "/"), (url, link)
                if to not in known and len(known) < MOST and "format=json" not in to and "/proof" not in to:
                    known.add(to)
                    waiting.append(to)
    assert shown > 5
