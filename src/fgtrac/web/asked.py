"""What a page of the explorer is: a plain function of what was asked, that gives what to show."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from fgtrac.api.trace import Trace
    from fgtrac.web.site import Site


class NotThereError(LookupError):
    """There is no such page, run or thing: 404."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: `path` and `query` are text by name, `trace` is opened and nobody else's while the page is made.

    `name` is empty on pages about the whole site. `given` is the user's own data (`--with`), `until` how long, by
    the monotonic clock, to wait for what is found out beside the pages.
    """

    site: Site
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    found: Trace | None = None
    given: Any = None
    until: float = 0.0

    @property
    def patience_s(self) -> float:
        """How long to wait from now on, however often."""
        return max(0.0, self.until - time.monotonic())

    @property
    def trace(self) -> Trace:
        """The trace that the page is about; ValueError on a page about none."""
        if self.found is None:
            raise ValueError("this page is about no trace")
        return self.found

    def number(self, name: str, otherwise: int, *, least: int = 0, most: int = 1 << 53) -> int:
        """A whole number of the query. ValueError for what is none or out of range."""
        text = self.query.get(name, "") or str(otherwise)
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            raise ValueError(f"{name}={text:.40} is no whole number from {least} to {most}")
        return int(text)


@dataclass(frozen=True, slots=True)
class Answer:
    """A page: `data` is plain data, the answer to `?format=json` and what the template reads; `command` is the command
    line that tells the same. `pictures` are pieces of HTML that fgtrac.drawing made of the same data, by name."""

    title: str
    template: str
    data: Mapping[str, Any]
    command: str = ""
    status: int = 200
    pictures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Download:
    """Bytes to keep, or a picture; with a `filename` the browser saves them."""

    data: bytes
    media_type: str
    filename: str = ""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another page of this site that answers: its address, as `address` makes it."""

    to: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page's place: `path` is "/run/{name}/log", where {name} is a trace's name and may be of several parts, and any
    other {word} is one part. `nav` is its word in the navigation of a run; without one it is not there.
    `needs_trace` is false for pages that answer even where the trace cannot be opened, `waits` for one whose JSON does
    not wait for what is found out beside the pages."""

    path: str
    show: Callable[[Asked], Answer | Download | Elsewhere]
    nav: str = ""
    needs_trace: bool = True
    waits: bool = True


RESERVED: set[str] = set()  # the fixed words of all pages' paths, which a trace's name must not be taken for


def address(*parts: object, **query: object) -> str:
    """A path of this site: `address("run", name, "log", size=3)`. A `/` in the second part divides a trace's name."""
    out = []
    for place, part in enumerate(parts):
        pieces = str(part).split("/") if place == 1 else [str(part)]
        for piece in pieces:
            quoted = quote(piece, safe="", errors="surrogateescape")
            if len(pieces) > 1 and piece in RESERVED:
                quoted = f"%{ord(piece[0]):02X}{quoted[1:]}"
            out.append(quoted)
    asked = urlencode({name: str(value) for name, value in query.items() if value not in (None, "")})
    return "/" + "/".join(out) + ("?" + asked if asked else "")
