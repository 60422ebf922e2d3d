"""Every link of every page leads to a page, each page is JSON too, and addresses last."""

from __future__ import annotations

import json
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from browser.addresses import DAMAGED, DEMOS, SITE, addresses
from browser.explored import Explorer, User, exploring

MOST = 120  # pages that a crawl looks at


class Links(HTMLParser):
    """Where the links of a page lead, and the names of its parts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.to: list[str] = []
        self.as_json: list[str] = []
        self.parts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.parts += [given["id"]] if "id" in given else []
        if tag == "a" and "href" in given:
            self.to.append(given["href"])
            if given.get("type") == "application/json":
                self.as_json.append(given["href"])


def get(url: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.headers["content-type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], error.read()


@pytest.mark.parametrize("name", DEMOS)
def test_every_link_leads_to_a_page(name: str, explorer: Explorer) -> None:
    waiting = [explorer.at(f"/run/{name}"), explorer.at(f"/compare?a={name}&b={name}")]
    known = set(waiting)
    kinds: dict[str, int] = {}
    while waiting:
        url = waiting.pop(0)
        status, media, body = get(url)
        assert status == 200, (url, body[:2000])
        if not media.startswith("text/html"):
            continue
        links = Links(body.decode())
        for link in links.to:
            to = urljoin(url, link)
            at, _, part = to.partition("#")
            if any(f"/run/{damaged}" in at for damaged in DAMAGED):
                continue
            assert urlsplit(to).netloc == urlsplit(url).netloc, (url, to)
            if at == url and part:
                assert part in links.parts, (url, link)
            kind = "/".join(urlsplit(at).path.split("/")[3:5])
            kinds[kind] = kinds.get(kind, 0) + (at not in known)
            if at not in known and len(known) < MOST and kinds[kind] <= 15:
                known.add(at)
                waiting.append(at)
    assert len(known) > 40


@pytest.mark.parametrize("name", DEMOS)
def test_every_page_is_json_too_with_the_same_question(name: str, explorer: Explorer, user: User) -> None:
    for path in [*addresses(user.runs, name), *SITE, f"/run/{name}/samples?page=2", f"/run/{name}/verdict"]:
        url = explorer.at(path)
        links = Links(get(url)[2].decode())
        assert len(links.as_json) == 1, path
        status, media, body = get(urljoin(url, links.as_json[0]))
        assert (status, media) == (200, "application/json"), path
        assert json.loads(body) == explorer.json(path) or "verdict" in path, path


def test_addresses_lead_to_the_same_when_the_explorer_is_started_again(user: User) -> None:
    paths = [path for name in DEMOS for path in addresses(user.runs, name)]

    def told() -> list[object]:
        with exploring(user, user.runs) as explorer:
            return [explorer.json(path) for path in paths if not path.endswith("/run")]

    first, second = told(), told()
    for path, one, other in zip(paths, first, second, strict=True):
        assert one == other, path


def test_a_trace_named_by_itself_has_the_same_addresses(user: User) -> None:
    with exploring(user, user.runs / "digits.trace") as explorer:
        for path in addresses(Path(user.runs), "digits"):
            assert get(explorer.at(path))[0] == 200, path
