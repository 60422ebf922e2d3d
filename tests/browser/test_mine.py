"""Was my data used? A file dropped on the page gets one of three answers and a receipt, and no byte of it is sent."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser.chromium import Browser, Page
from browser.explored import Explorer, User, exploring
from browser.files_of_mine import SECRET_WORD, UNKNOWN, UNUSED, USED, train_on_photos

ANSWERS = {"used": (USED, "used"), "not used": (UNUSED, "not used"), "not there": (UNKNOWN, "not used")}

ANSWERED = "document.querySelector('.mine-answer') !== null"
CHOOSE_ZEROS = """(size) => {
  const held = new DataTransfer();
  held.items.add(new File([new Uint8Array(size)], "zeros"));
  const input = document.querySelector("#mine-chosen");
  input.files = held.files;
  input.dispatchEvent(new Event("change"));
}"""


@pytest.fixture(scope="module")
def runs(user: User, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`open` has public ids, `keyed` has keyed ones; the vaults lie beside them."""
    folder = tmp_path_factory.mktemp("photos")
    train_on_photos(user, folder, "open", ids="public")
    trace = train_on_photos(user, folder, "keyed", ids="keyed")
    assert trace.with_suffix(".vault").exists()
    return folder


@pytest.fixture(scope="module")
def explorer(user: User, runs: Path) -> Iterator[Explorer]:
    with exploring(user, runs) as running:
        yield running


def check_nothing_sent(page: Page, data: bytes) -> None:
    """Requests with neither the bytes of the file nor any word in it, but for its digest; and nothing went wrong."""
    seen = page.seen()
    assert not seen.troubles(page.origin)
    assert seen.bodies() == []
    assert {request["method"] for request in seen.requests} == {"GET"}
    asked = " ".join(request["url"] for request in seen.requests)
    assert hashlib.sha256(data).hexdigest() in asked
    assert SECRET_WORD.decode() not in asked
    assert data.hex() not in asked


@pytest.mark.parametrize(
    ("run", "case", "how"),
    [*((run, case, "dropped") for run in ("open", "keyed") for case in ANSWERS), ("keyed", "used", "chosen")],
)
def test_a_file_is_answered_and_never_sent(run: str, case: str, how: str, browser: Browser, explorer: Explorer) -> None:
    data, answer = ANSWERS[case]
    with browser.page(explorer.at(f"/run/{run}/mine")) as page:
        if how == "dropped":
            page.drop_file("#mine-file", "my photo.gif", data)
        else:
            page.put_file("#mine-chosen", "my photo.gif", data)
        page.wait(ANSWERED)
        check_nothing_sent(page, data)
        assert page.count(f".mine-answer.{answer.replace(' ', '-')}") == 1, page.text("main")
        assert ("Yes" if answer == "used" else "No") in page.text(".mine-answer h2")
        assert page.axe() == []
        told = explorer.json(page.url.removeprefix(explorer.origin))
        assert told["answer"] == answer


def test_without_the_vault_keyed_ids_leave_it_open_and_the_page_says_why(
    browser: Browser, user: User, runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "keyed.trace", tmp_path / "keyed.trace")
    with exploring(user, tmp_path) as explorer, browser.page(explorer.at("/run/keyed/mine")) as page:
        page.drop_file("#mine-file", "my photo.gif", USED)
        page.wait(ANSWERED)
        check_nothing_sent(page, USED)
        assert page.count(".mine-answer.cannot-tell") == 1
        assert "cannot be told" in page.text(".mine-answer h2")
        assert "vault" in page.text(".mine-answer")


@pytest.mark.parametrize(
    ("run", "case"), [("open", "used"), ("keyed", "used"), ("open", "not used"), ("open", "not there")]
)
def test_the_receipt_is_small_and_verifies_without_the_trace(
    run: str, case: str, browser: Browser, explorer: Explorer, user: User, tmp_path: Path
) -> None:
    data, _answer = ANSWERS[case]
    with browser.page(explorer.at(f"/run/{run}/mine")) as page:
        page.drop_file("#mine-file", "photo", data)
        page.wait(ANSWERED)
        name, receipt = page.download(".mine-answer a[download]")
    assert name.endswith(".json")
    assert len(receipt) <= 20_000
    (tmp_path / "receipt.json").write_bytes(receipt)
    said = json.loads(user.fgtrac("verify", tmp_path / "receipt.json", "--json", code=None))
    assert said["verdict"] == "holds", said


def test_a_large_file_is_digested_in_pieces(browser: Browser, explorer: Explorer) -> None:
    size = 70_000_000  # more than is handed to WebCrypto at once
    with browser.page(explorer.at("/run/open/mine")) as page:
        page.run(CHOOSE_ZEROS, size)
        page.wait(ANSWERED)
        assert hashlib.sha256(bytes(size)).hexdigest() in page.url
        assert page.seen().bodies() == []
