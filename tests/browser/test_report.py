"""A report in a browser: whole and readable without network, in light and dark, and red where it is to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from browser.addresses import DEMOS
from browser.chromium import Browser
from browser.explored import User


@pytest.fixture(scope="module")
def reports(user: User, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of each trace of the user."""
    folder = tmp_path_factory.mktemp("reports")
    for name in DEMOS:
        user.fgtrac("report", user.runs / f"{name}.trace", "-o", folder / f"{name}.html", "--names")
    user.fgtrac("report", user.runs / "tampered.trace", "-o", folder / "tampered.html", code=1)
    user.fgtrac("report", user.runs / "unsealed.trace", "-o", folder / "unsealed.html", code=None)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*DEMOS, "tampered", "unsealed"])
def test_a_report_is_whole_and_accessible_without_network(
    name: str, scheme: str, browser: Browser, reports: Path
) -> None:
    with browser.page(scheme=scheme, offline=True, script=False) as page:
        page.go((reports / f"{name}.html").as_uri())
        seen = page.seen()
        assert [r["url"] for r in seen.requests] == [(reports / f"{name}.html").as_uri()]
        assert not [*seen.console, *seen.errors, *seen.failed]
        assert page.count("h1") == page.count("main") == 1
        assert page.count("svg[role=img] > title:first-child") == page.count("svg")
    with browser.page(scheme=scheme) as page:
        page.go((reports / f"{name}.html").as_uri())
        assert not page.axe()
        for width in (1280, 360):
            page.tell("size", width=width, height=800)
            assert page.run("document.documentElement.scrollWidth") <= width


def test_the_colour_of_the_verdict_is_that_of_the_finding(browser: Browser, reports: Path) -> None:
    shown = {}
    for name in (DEMOS[0], "tampered", "unsealed"):
        with browser.page((reports / f"{name}.html").as_uri()) as page:
            said = page.text(".verdict")
            shown[name] = page.run("getComputedStyle(document.querySelector('.verdict')).color")
            assert said.split()[1] == {DEMOS[0]: "holds", "tampered": "refuted", "unsealed": "cannot"}[name]
    assert len(set(shown.values())) == 3


def test_a_policy_that_is_broken_would_be_seen(browser: Browser, reports: Path, tmp_path: Path) -> None:
    changed = (reports / f"{DEMOS[0]}.html").read_text().replace("<style>", "<style> ")
    (tmp_path / "changed.html").write_text(changed)
    with browser.page((tmp_path / "changed.html").as_uri()) as page:
        assert any("Content Security Policy" in line for line in page.seen().console)
