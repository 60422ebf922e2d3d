"""Suspects are marked in the browser, kept when the page is loaded again, and taken away as CSV."""

from __future__ import annotations

import csv
import io

import pytest

from browser.chromium import Browser
from browser.explored import Explorer

BOXES = "input.mark-suspect:not([disabled])"


@pytest.mark.parametrize("name", ["digits", "icons"])
def test_marks_are_kept_and_saved_as_csv_and_nothing_is_sent(name: str, browser: Browser, explorer: Explorer) -> None:
    with browser.page(explorer.at(f"/run/{name}/suspects")) as page:
        page.wait_until_done()
        page.wait(f"document.querySelectorAll('{BOXES}').length > 2")
        ids = page.run(f"[...document.querySelectorAll('{BOXES}')].slice(0, 3).map((box) => box.value)")
        for box in ids[0], ids[2]:
            page.click(f"input[value='{box}']")
        assert page.text(".marked-count") == "2"
        page.reload()
        page.wait("document.querySelector('.marked-count').textContent === '2'")
        checked = page.run("[...document.querySelectorAll('input.mark-suspect:checked')].map((box) => box.value)")
        assert sorted(checked) == sorted([ids[0], ids[2]])
        saved, data = page.download(".save-marked")
        assert saved.endswith(".csv")
        rows = list(csv.DictReader(io.StringIO(data.decode())))
        assert {row["id"] for row in rows} == {ids[0], ids[2]}
        page.click(".unmark")
        assert page.count("input.mark-suspect:checked") == 0
        seen = page.seen()
        assert not seen.troubles(page.origin)
        assert seen.bodies() == []


def test_the_csv_of_all_holds_what_the_page_lists(browser: Browser, explorer: Explorer) -> None:
    with browser.page(explorer.at("/run/digits/suspects")) as page:
        page.wait_until_done()
        name, data = page.download("a[download]")
        listed = explorer.json("/run/digits/suspects")["suspects"]
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert name.endswith(".csv")
    assert [row["id"] for row in rows] == [one["id"] for one in listed]
