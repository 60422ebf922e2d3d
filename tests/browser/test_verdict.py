"""The verdict on each page: grey, green, amber, red, and never green for what was not checked as it now stands."""

from __future__ import annotations

import colorsys
import re
import shutil
from pathlib import Path

import pytest

from browser.chromium import Browser, Page
from browser.explored import User, change_byte, copy_trace, entries_of, exploring

PAGE = "/run/digits/samples"
GREEN, RED, AMBER = (90, 170), (340, 20), (21, 65)  # hues in degrees, clockwise


def state(page: Page) -> str:
    return str(page.run("document.querySelector('.standing').dataset.state"))


def wait_for(page: Page, *states: str) -> None:
    page.wait("states => states.includes(document.querySelector('.standing').dataset.state)", list(states))


def colour(page: Page) -> tuple[float, float]:
    """Hue in degrees and saturation of the verdict's mark."""
    said = page.run("getComputedStyle(document.querySelector('.standing .mark')).color")
    red, green, blue = (float(part) / 255 for part in re.findall(r"[\d.]+", said)[:3])
    hue, _light, saturation = colorsys.rgb_to_hls(red, green, blue)
    return hue * 360, saturation


def is_of(page: Page, hues: tuple[int, int]) -> bool:
    hue, saturation = colour(page)
    first, last = hues
    return saturation > 0.25 and (first <= hue <= last if first < last else hue >= first or hue <= last)


@pytest.fixture
def folder(user: User, tmp_path: Path) -> Path:
    """A folder with a trace of the user's that a test may change."""
    copy_trace(user.runs / "digits.trace", tmp_path / "digits.trace")
    return tmp_path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_was_not_checked_is_grey_and_what_holds_with_the_users_key_is_green(
    scheme: str, browser: Browser, user: User, folder: Path
) -> None:
    with exploring(user, folder) as explorer:
        with browser.page(explorer.at(PAGE), scheme=scheme, script=False) as still:
            assert state(still) in ("waiting", "checking")
            assert "not checked yet" in still.text(".standing")
            assert colour(still)[1] < 0.25, "grey"
        with browser.page(explorer.at(PAGE), scheme=scheme) as page:
            wait_for(page, "holds")
            assert "holds" in page.text(".standing")
            assert is_of(page, GREEN), colour(page)
            page.go(explorer.at("/run/digits"))
            assert state(page) == "holds"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_without_the_key_of_whoever_signed_it_is_amber(
    scheme: str, browser: Browser, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = User(tmp_path_factory.mktemp("stranger"))
    with exploring(stranger, folder) as explorer, browser.page(explorer.at(PAGE), scheme=scheme) as page:
        wait_for(page, "cannot tell")
        assert "cannot tell" in page.text(".standing")
        assert is_of(page, AMBER), colour(page)
        assert "key" in page.text("main") + browser_text(page, explorer.at("/run/digits/verdict"))


def browser_text(page: Page, url: str) -> str:
    page.go(url)
    return page.text("main")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_changed_byte_turns_an_open_page_red_and_green_only_when_it_is_mended(
    scheme: str, browser: Browser, user: User, folder: Path
) -> None:
    with exploring(user, folder) as explorer, browser.page(explorer.at(PAGE), scheme=scheme) as page:
        wait_for(page, "holds")
        change_byte(entries_of(folder / "digits.trace"))
        with browser.page(explorer.at(PAGE), script=False) as still:
            assert state(still) != "holds"
        wait_for(page, "refuted")
        assert "refuted" in page.text(".standing")
        assert is_of(page, RED), colour(page)
        change_byte(entries_of(folder / "digits.trace"))
        wait_for(page, "holds")


@pytest.mark.parametrize(
    "name", ["checkpoint", "tile/0/000.p/*", "index/*/keys.npy", "index/*/values.npy", "artifacts/*.safetensors"]
)
def test_an_explorer_started_over_a_changed_trace_is_red_and_at_no_time_green(
    name: str, browser: Browser, user: User, folder: Path
) -> None:
    change_byte(next((folder / "digits.trace").glob(name)))
    with exploring(user, folder) as explorer, browser.page(explorer.at("/run/digits/verdict"), script=False) as page:
        seen = {state(page)}
        while not seen & {"refuted", "holds", "cannot tell"}:
            page.reload()
            seen.add(state(page))
        assert seen <= {"waiting", "checking", "refuted"}, page.text("main")


def test_findings_are_of_the_same_check_as_the_line_above_them(browser: Browser, user: User, folder: Path) -> None:
    def hide(page: Page, is_hidden: bool) -> None:
        page.run("is => Object.defineProperty(document, 'hidden', { value: is, configurable: true })", is_hidden)

    with exploring(user, folder) as explorer, browser.page(explorer.at("/run/digits/verdict")) as page:
        wait_for(page, "holds")
        hide(page, True)  # which asks for nothing meanwhile
        more = folder / "digits.trace/more"
        for put in (lambda: more.write_bytes(b"x"), more.unlink):
            before = explorer.json("/run/digits/verdict")["checked"]
            put()
            while (now := explorer.json("/run/digits/verdict"))["checked"] == before or now["state"] != now["verdict"]:
                pass
            hide(page, False)
            page.wait("words => document.querySelector('main .verdict').textContent === words", now["words"])
            assert page.text(".standing .words") == now["words"]
            for note in now["notes"]:
                assert note[:100] in page.text("main")
            hide(page, True)


def test_another_trace_in_its_place_is_checked_again(browser: Browser, user: User, folder: Path) -> None:
    with exploring(user, folder) as explorer, browser.page(explorer.at(PAGE)) as page:
        wait_for(page, "holds")
        shutil.rmtree(folder / "digits.trace")
        shutil.copytree(user.runs / "icons.trace", folder / "digits.trace")
        with browser.page(explorer.at(PAGE), script=False) as still:
            assert state(still) != "holds"
        wait_for(page, "holds", "cannot tell", "refuted")
