"""Debian's Chromium, driven from Python: one node process for a session, pages as a person at the screen has them."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

INSTALLED = Path(sys.prefix) / "npm-browser"
TOOLS = ("node", "chromium")


def missing() -> str:
    """What to say where something that these tests need is not installed; empty where all is."""
    gone = [tool for tool in TOOLS if shutil.which(tool) is None]
    packages = ("playwright-core", "axe-core")
    gone += [name for name in packages if not (INSTALLED / "node_modules" / name / "package.json").exists()]
    return f"not there: {', '.join(gone)}; make test-browser installs what npm has, the rest is yours" if gone else ""


class BrowserError(AssertionError):
    """The browser could not do what it was told."""


class Browser:
    """Chromium with no page yet."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, verb: str, **given: Any) -> Any:
        """What drive.mjs answers to a verb. BrowserError where it cannot."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"verb": verb, **given}) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise BrowserError(f"the browser is gone; it ended with {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise BrowserError(f"{verb} {given}: {answer['error']}"[:2000])
        return answer["answer"]

    @contextmanager
    def page(self, url: str = "", **options: Any) -> Iterator[Page]:
        """A page in a context of its own (no cookie or storage of others). Options as `open` in drive.mjs has them:
        scheme, width, height, offline, permissions, script."""
        page = Page(self, self.tell("open", **options))
        try:
            if url:
                page.go(url)
            yield page
        finally:
            self.tell("close", page=page.number)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser until the block is left."""
    chromium = shutil.which("chromium")
    command = ["node", str(Path(__file__).with_name("drive.mjs")), str(INSTALLED), str(chromium)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Browser(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


@dataclass(frozen=True, slots=True)
class Seen:
    """What happened on a page: messages of console and scripts, requests, dialogs."""

    console: list[str]
    errors: list[str]
    failed: list[str]
    requests: list[dict[str, str]]
    dialogs: list[str]

    def outside(self, origin: str) -> list[str]:
        """The requests to anywhere else."""
        own = (f"{origin}/", "data:", "blob:")
        return [r["url"] for r in self.requests if not r["url"].startswith(own) and r["url"] != origin]

    def bodies(self) -> list[bytes]:
        return [base64.b64decode(r["body"]) for r in self.requests if r["body"]]

    def troubles(self, origin: str) -> list[str]:
        """All that a clean page has none of; a broken content security policy is one of console's errors."""
        return [*self.console, *self.errors, *self.failed, *self.dialogs, *self.outside(origin)]


@dataclass(frozen=True, slots=True)
class Page:
    """One page; selectors are CSS or playwright's own (`text=...`)."""

    browser: Browser
    number: int

    def tell(self, verb: str, **given: Any) -> Any:
        return self.browser.tell(verb, page=self.number, **given)

    def go(self, url: str) -> int:
        """Opens an address, until everything of it is loaded: the HTTP status, 0 of a file."""
        return int(self.tell("go", url=url)["status"])

    def wait_until_done(self) -> None:
        """Until nothing of the page is still being worked out beside it."""
        self.wait("document.readyState === 'complete' && document.querySelector('[data-again]') === null")

    def reload(self) -> None:
        self.tell("reload")

    @property
    def url(self) -> str:
        return str(self.tell("url"))

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def seen(self) -> Seen:
        """What happened since the page was opened or last asked."""
        return Seen(**self.tell("seen"))

    def run(self, script: str, value: Any = None) -> Any:
        """What an expression gives in the page, or with a value a function of it."""
        return self.tell("run", script=script, value=value)

    def wait(self, script: str, value: Any = None) -> None:
        """Until what `run` would give is true; 30 s at most."""
        self.tell("wait", script=script, value=value)

    def text(self, selector: str = "body") -> str:
        return str(self.tell("text", selector=selector))

    def texts(self, selector: str) -> list[str]:
        return list(self.tell("texts", selector=selector))

    def count(self, selector: str) -> int:
        return int(self.tell("count", selector=selector))

    def click(self, selector: str) -> None:
        self.tell("click", selector=selector)

    def fill(self, selector: str, value: str) -> None:
        self.tell("fill", selector=selector, value=value)

    def choose(self, selector: str, value: str) -> None:
        self.tell("choose", selector=selector, value=value)

    def press(self, keys: str) -> None:
        self.tell("press", keys=keys)

    def type(self, text: str) -> None:
        self.tell("type", text=text)

    def put_file(self, selector: str, name: str, data: bytes) -> None:
        """Choose a file in a file input."""
        self.tell("put_file", selector=selector, name=name, base64=base64.b64encode(data).decode())

    def drop_file(self, selector: str, name: str, data: bytes) -> None:
        """Drag a file onto an element."""
        self.tell("drop_file", selector=selector, name=name, base64=base64.b64encode(data).decode())

    def download(self, selector: str) -> tuple[str, bytes]:
        """What a click saves: its name and bytes."""
        got = self.tell("download", selector=selector)
        return got["name"], base64.b64decode(got["base64"])

    def axe(self) -> list[dict[str, Any]]:
        """What axe finds against WCAG and its own best practices: rule, help and where."""
        return list(self.tell("axe"))

    def tab_order(self, most: int = 400) -> list[dict[str, Any]]:
        """The elements that Tab reaches: html, name, and whether the focus is visible."""
        return list(self.tell("tab_order", most=most))

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        self.tell("screenshot", path=str(path), full=full)
