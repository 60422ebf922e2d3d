"""Whoever waits for data keeps no page waiting, and a page of another site is no part of this one's askers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asgi import Response, _ask, ask
from fgtrac.web import explorer
from fgtrac.web import site as site_module
from fgtrac.web.pages import samples
from traces import make_trace

LONG_S = 5.0  # no page takes so long


@contextmanager
def gate(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> Iterator[threading.Event]:
    """What this function finds out beside the pages comes once the test says so, at the latest at its end."""
    may_go_on, real = threading.Event(), getattr(module, name)

    def waited(*given: Any) -> Any:
        assert may_go_on.wait(60)
        return real(*given)

    monkeypatch.setattr(module, name, waited)
    try:
        yield may_go_on
    finally:
        may_go_on.set()


async def in_time(asked: Awaitable[Response]) -> Response:
    return await asyncio.wait_for(asked, LONG_S)


def test_many_who_wait_for_data_keep_no_page_and_no_file_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trace(tmp_path)
    app = explorer.explorer_app(tmp_path)

    async def many(may_go_on: threading.Event) -> None:
        waiting = [asyncio.ensure_future(_ask(app, "/run/run?format=json", "GET", {})) for _ in range(60)]
        await asyncio.sleep(0.3)
        for path in ("/static/style.css", "/", "/run/run", "/run/run/log", "/run/run/verdict?format=json"):
            assert (await in_time(_ask(app, path, "GET", {}))).status == 200
        assert not any(one.done() for one in waiting)
        may_go_on.set()
        answers = await asyncio.gather(*waiting)
        assert {(one.status, json.loads(one.text)["is_read"]) for one in answers} == {(200, True)}

    with gate(monkeypatch, site_module, "overview") as may_go_on:
        asyncio.run(many(may_go_on))
    app.state.site.stop()


def test_who_waits_for_data_keeps_no_other_page_of_the_trace_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trace(tmp_path)
    app = explorer.explorer_app(tmp_path)

    async def two(may_go_on: threading.Event) -> None:
        waiting = asyncio.ensure_future(_ask(app, "/run/run/samples?format=json", "GET", {}))
        await asyncio.sleep(0.3)
        for page in ("mine", "samples"):
            assert (await in_time(_ask(app, f"/run/run/{page}", "GET", {}))).status == 200
        assert not waiting.done()
        may_go_on.set()
        assert json.loads((await waiting).text)["count"] == 20

    with gate(monkeypatch, samples, "_tables") as may_go_on:
        asyncio.run(two(may_go_on))
    app.state.site.stop()


def test_two_waits_of_one_request_are_together_no_longer_than_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trace(tmp_path / "a")
    make_trace(tmp_path / "b")
    monkeypatch.setattr(explorer, "WAIT_S", 1.0)
    app = explorer.explorer_app(tmp_path)
    with gate(monkeypatch, site_module, "overview"):
        began = time.monotonic()
        assert ask(app, "/compare?a=a/run&b=b/run&format=json").status == 200
        assert time.monotonic() - began < 1.9
        app.state.site.stop()


def test_nobody_waits_for_an_explorer_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_trace(tmp_path)
    app = explorer.explorer_app(tmp_path)
    with gate(monkeypatch, site_module, "overview"):
        threading.Timer(0.3, app.state.site.stop).start()
        began = time.monotonic()
        assert not json.loads(ask(app, "/run/run?format=json").text)["is_read"]
        assert time.monotonic() - began < LONG_S


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_may_lead_here_and_show_nothing_from_here(site: str, tmp_path: Path) -> None:
    make_trace(tmp_path)
    app = explorer.explorer_app(tmp_path)
    for dest in ("image", "script", "iframe", "empty"):
        answer = ask(app, "/run/run?format=json", sec_fetch_site=site, sec_fetch_dest=dest, sec_fetch_mode="no-cors")
        assert answer.status == 403
        assert "a page of another site" in answer.text
    assert ask(app, "/", sec_fetch_site=site, sec_fetch_dest="document", sec_fetch_mode="navigate").status == 200
    for own in ("same-origin", "none"):
        assert ask(app, "/static/style.css", sec_fetch_site=own, sec_fetch_dest="style").status == 200
    app.state.site.stop()
