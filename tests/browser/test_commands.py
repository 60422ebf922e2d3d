"""Each page's command is copied by its button, runs in a shell, and says what the page's JSON says."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from browser.addresses import DEMOS, OF_RUN, addresses
from browser.chromium import Browser
from browser.explored import FGTRAC, Explorer, User

CLIPBOARD = ["clipboard-read", "clipboard-write"]


def run(user: User, command: str, *more: str) -> subprocess.CompletedProcess[str]:
    """A command line as a shell runs it, with `fgtrac` on the path."""
    environment = user.environment()
    environment["PATH"] = f"{FGTRAC.parent}:{environment['PATH']}"
    line = " ".join([command, *more])
    return subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, check=False)


def copied(browser: Browser, url: str) -> str:
    """What the page's button copies, which is what the page shows."""
    with browser.page(url, permissions=CLIPBOARD) as page:
        page.wait_until_done()
        page.click("button.copy")
        page.wait("document.querySelector('button.copy').textContent.startsWith('Copied')")
        text = str(page.run("navigator.clipboard.readText()"))
        assert text == page.text(".command code")
    return text


@pytest.mark.parametrize("place", range(len(OF_RUN)), ids=[page or "/" for page in OF_RUN])
def test_the_command_of_a_page_is_copied_and_runs(place: int, browser: Browser, explorer: Explorer, user: User) -> None:
    command = copied(browser, explorer.at(addresses(user.runs, "digits")[place]))
    if "YOURS" in command:
        return  # the page about data that nobody named yet shows the form of the command
    done = run(user, command)
    assert done.returncode == 0, (command, done.stderr)
    assert done.stdout


@pytest.mark.parametrize("name", DEMOS)
def test_the_commands_agree_with_the_pages(name: str, browser: Browser, explorer: Explorer, user: User) -> None:
    def told(path: str) -> tuple[Any, Any]:
        command = copied(browser, explorer.at(path))
        return explorer.json(path), json.loads(run(user, command, "--json").stdout)

    sample = next(path for path in addresses(user.runs, name) if "/sample/" in path)
    page, command = told(sample)
    assert page["id"] == command["id"]
    page, command = told(f"/run/{name}/suspects")
    listed = [one["id"] for one in page["suspects"]]
    assert listed
    assert [one["id"] for one in command["suspects"]][: len(listed)] == listed
    page, command = told(f"/run/{name}/verdict")
    assert page["state"] == command["verdict"] == "holds"
    assert {f["check"]: f["verdict"] for f in page["findings"]} == {
        f["check"]: f["verdict"] for f in command["findings"]
    }
