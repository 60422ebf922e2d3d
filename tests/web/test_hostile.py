"""Hostile content in the explorer: what a trace says is shown as text, what is asked for stays in the trace."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urljoin

import pytest

from asgi import App, Response, ask, ask_until_done
from fgtrac.web.explorer import explorer_app
from hostile_trace import MARKED, TRACE_NAME, make_hostile_trace

NAME = quote(TRACE_NAME.removesuffix(".trace"), safe="")
MOST_BYTES = 2_000_000  # of any page, whatever a trace holds
STARTS = ("/", f"/run/{NAME}/samples?role=validation", f"/compare?a={NAME}&b={NAME}")
MOST_ALIKE = 7  # pages
# What no page holds as it is: control characters, and those that turn the direction of text or cannot be seen.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

INNER = re.compile(r"/(?![/\\])|[?#]|data:image/png;base64,[A-Za-z0-9+/=]+$|data:,$|$")  # where links may lead


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the hostile trace."""
    folder = tmp_path_factory.mktemp("hostile") / "runs"
    folder.mkdir()
    make_hostile_trace(folder)
    return folder


@pytest.fixture(scope="module")
def app(place: Path) -> App:
    return explorer_app(place, key=str(place / "key.pem"))


class Read(HTMLParser):
    """A page as a browser takes it apart: what runs, what it loads, where it leads, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.active: list[str] = []  # scripts in the page, handlers, style attributes, frames, refreshes
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.active += [f"{tag} {name}" for name in given if name.startswith("on") or name in ("style", "srcdoc")]
        if (tag == "script" and "src" not in given) or tag in ("iframe", "object", "embed", "base", "style"):
            self.active.append(tag)
        if tag == "meta" and "http-equiv" in given:
            self.active.append("meta http-equiv")
        self.links += [given[name] or "" for name in ("href", "action", "formaction", "xlink:href") if name in given]
        self.loads += [given[name] or "" for name in ("src", "srcset", "data", "poster") if name in given]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def check_harmless(answer: Response, where: str) -> Read | None:
    """The answer is bounded, and a page holds nothing that runs or leads away. None for what is no page."""
    assert len(answer.body) <= MOST_BYTES, f"{where} has {len(answer.body):,} bytes"
    assert "default-src 'none'" in answer.headers["content-security-policy"], where
    assert answer.headers["x-content-type-options"] == "nosniff", where
    assert not UNSEEN.search(" ".join(answer.headers.values())), where
    if not answer.headers["content-type"].startswith("text/html"):
        return None
    assert not (found := UNSEEN.search(answer.text)), f"{where} holds {found[0]!r} as it is"
    assert "Traceback" not in answer.text, where
    read = Read(answer.text)
    assert not read.active, where
    for link in read.links + read.loads:
        assert INNER.match(link), f"{where} leads to {link!r}"
    return read


def kind_of(at: str) -> str:
    """Which page an address is of, whatever it is about."""
    return re.sub(r"[0-9a-f]{64}|\d+", "*", at.partition("?")[0].removeprefix(f"/run/{NAME}"))


def crawl(app: App, *starts: str) -> Iterator[tuple[str, Response, Read | None]]:
    """The pages that links lead to from there, each once, MOST_ALIKE of a kind."""
    waiting, known = list(starts), set(starts)
    kinds: Counter[str] = Counter()
    while waiting:
        at = waiting.pop(0)
        answer = ask_until_done(app, at)
        read = check_harmless(answer, at)
        yield at, answer, read
        for link in read.links if read else []:
            to = urljoin(at, link).partition("#")[0]
            if to.startswith("/") and to not in known and kinds[kind_of(to)] < MOST_ALIKE:
                kinds[kind_of(to)] += 1
                known.add(to)
                waiting.append(to)


def test_every_page_and_its_json_show_hostile_text_as_text_and_bounded(app: App) -> None:
    told = set()
    for at, answer, read in crawl(app, *STARTS):
        is_too_long = "named=yes" in at and answer.status == 400  # a bundle holds no name of 10 MB
        assert answer.status in (200, 303) or is_too_long, (at, answer.status, answer.text[:2000])
        if read is None:
            continue
        if MARKED in "".join(read.words):
            told.add(kind_of(at))
        plain = ask(app, f"{at}{'&' if '?' in at else '?'}format=json")
        assert plain.headers["content-type"].startswith("application/json"), at
        assert len(plain.body) <= MOST_BYTES, f"{at} has {len(plain.body):,} bytes as JSON"
        json.loads(plain.body)
    assert {"", "/samples", "/sample/*", "/prediction/*", "/suspects", "/mine", "/log/entry/*"} <= told, told
