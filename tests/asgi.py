"""An ASGI application asked in this process, without a socket: the path reaches it exactly as it is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

App = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Response:
    """What was answered; header names are in small letters, the last of a name counts."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")


def ask(app: App, target: str, *, method: str = "GET", **headers: str) -> Response:
    """The answer to `target`, a path with its query in ASCII; `_` in a header's name stands for `-`."""
    return asyncio.run(_ask(app, target, method, headers))


def ask_until_done(app: App, target: str, *, patience_s: float = 30) -> Response:
    """The same when nothing of the page is still being worked out beside it."""
    until = time.monotonic() + patience_s
    while b"data-again" in (answer := ask(app, target)).body:
        assert time.monotonic() < until, f"{target} is still being worked out after {patience_s} s"
        time.sleep(0.02)
    return answer


async def _ask(app: App, target: str, method: str, headers: dict[str, str]) -> Response:
    path, _, query = target.partition("?")
    given = {"host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = next(m for m in sent if m["type"] == "http.response.start")
    body = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    answered = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
    return Response(start["status"], answered, body)
