"""The marks of suspects: of one browser and one trace, of both lists, and believed for nothing."""

from __future__ import annotations

import csv
import io

from browser.addresses import DEMOS
from browser.chromium import Browser, Page
from browser.explored import Explorer

LIST = "document.querySelector('.mark-suspect') !== null"
MARKED = ".marked-count"


def opened(page: Page, explorer: Explorer, demo: str, query: str = "") -> None:
    """The page, once the list is there: it comes back by itself until then."""
    assert page.go(explorer.at(f"/run/{demo}/suspects{query}")) == 200
    page.wait(LIST)
    page.wait("document.readyState === 'complete'")


def mark(page: Page, place: int) -> str:
    """Tick the box of a row: the sample's id."""
    page.click(f"tbody tr:nth-child({place}) .mark-suspect")
    return str(page.run(f"document.querySelector('tbody tr:nth-child({place}) .mark-suspect').value"))


def rows(text: str) -> dict[str, dict[str, str]]:
    return {row["id"]: row for row in csv.DictReader(io.StringIO(text))}


def test_marks_of_both_lists_are_saved_with_the_columns_of_the_whole_list(browser: Browser, explorer: Explorer) -> None:
    with browser.page() as page:
        opened(page, explorer, DEMOS[0])
        chosen = {mark(page, 1), mark(page, 3)}
        opened(page, explorer, DEMOS[0], "?by=self-influence")
        chosen.add(mark(page, 40))
        page.wait(f"document.querySelector('{MARKED}').textContent === '{len(chosen)}'")
        name, saved = page.download(".save-marked")
        _, whole = page.download("a[download]")
        troubles = page.seen().troubles(explorer.origin)
    assert name == "marked-suspects.csv"
    marked, every = rows(saved.decode()), rows(whole.decode())
    assert marked.keys() == chosen
    assert saved.decode().partition("\n")[0] == whole.decode().partition("\n")[0]
    for sample, row in marked.items():
        assert (row["dataset"], row["key"], row["label"]) == tuple(
            every[sample][c] for c in ("dataset", "key", "label")
        )
        assert float(row["mean_loss"]) == float(every[sample]["mean_loss"])
    assert not troubles


def test_marks_stay_in_this_browser_and_are_of_this_trace(browser: Browser, explorer: Explorer) -> None:
    with browser.page() as page:
        opened(page, explorer, DEMOS[0])
        sample = mark(page, 2)
        page.seen()
        page.reload()
        page.wait(f"document.querySelector('{MARKED}').textContent === '1'")
        assert page.run(f"document.querySelector('input[value=\"{sample}\"]').checked")
        assert all(request["method"] == "GET" and not request["body"] for request in page.seen().requests)
        opened(page, explorer, DEMOS[1])
        assert page.text(MARKED) == "0"
        opened(page, explorer, DEMOS[0])
        page.click(".unmark")
        page.reload()
        page.wait(f"document.querySelector('{MARKED}').textContent === '0'")
    with browser.page() as page:
        opened(page, explorer, DEMOS[0])
        assert page.text(MARKED) == "0"


def test_what_is_kept_in_the_browser_is_not_believed(browser: Browser, explorer: Explorer) -> None:
    with browser.page() as page:
        opened(page, explorer, DEMOS[0])
        name = "'fgtrac suspects ' + document.querySelector('.marking').dataset.trace"
        for kept in ("{", "7", '["<img src=x>", 3, null]'):
            page.run(f"value => localStorage.setItem({name}, value)", kept)
            page.reload()
            page.wait(LIST)
            assert page.text(MARKED) == "0"
        assert not page.seen().errors
