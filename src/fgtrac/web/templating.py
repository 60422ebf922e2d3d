"""Templates to HTML: everything is escaped, nothing undefined is passed over, no character moves the page about."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from fgtrac.drawing.style import CSS
from fgtrac.errors import not_installed
from fgtrac.events.one_line import one_line
from fgtrac.web.asked import address

STATIC = {
    "style.css": "text/css",
    "explorer.js": "text/javascript",
    "mine.js": "text/javascript",
    "suspects.js": "text/javascript",
}


class Templates:
    """The package's templates. ValueError where jinja2 is not installed."""

    def __init__(self) -> None:
        try:
            from jinja2 import Environment, PackageLoader, StrictUndefined
            from markupsafe import Markup
        except ModuleNotFoundError as error:
            raise not_installed("the explorer needs", error.name, "ui") from error
        self._safe = Markup
        self._pages = Environment(
            loader=PackageLoader("fgtrac.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=lambda value: one_line(value) if type(value) is str else value,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._pages.globals["address"] = address
        self._pages.filters |= {
            "count": _count,
            "number": _number,
            "short": _short,
            "sentences": _sentences,
            "bytes": _bytes,
            "when": _when,
        }

    def render(self, template: str, pictures: Mapping[str, str], **values: Any) -> str:
        """A page. `pictures` are pieces of HTML that are put in as they are: only fgtrac.drawing makes such."""
        safe = {name: self._safe(piece) for name, piece in pictures.items()}
        return self._pages.get_template(template).render(pictures=safe, **values)


def static_file(name: str) -> bytes:
    """A style sheet or a script of the package."""
    data = files("fgtrac.web").joinpath("static", name).read_bytes()
    return CSS.encode() + data if name == "style.css" else data


def _count(value: int | None) -> str:
    """12,345; of nothing, a dash."""
    return "–" if value is None else f"{value:,}"


def _number(value: float | str | None) -> str:
    """Six significant digits; of nothing, a dash."""
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(text: str, most: int = 16) -> str:
    """The beginning of what is too long."""
    return text if len(text) <= most else text[:most] + "…"


def _sentences(text: str, most: int) -> str:
    """The sentences at the beginning of what is too long, whole, as far as there are any."""
    end = text.rfind(". ", 0, most) if len(text) > most else -1
    return _short(text, most) if end < 0 else f"{text[: end + 1]} …"


def _bytes(size: int) -> str:
    """A size in the largest unit that it fills."""
    amount, unit = float(size), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{size} B" if unit == "B" else f"{amount:.3g} {unit}"


def _when(nanoseconds: int | None) -> str:
    """A time in UTC, to the second."""
    from datetime import UTC, datetime

    if nanoseconds is None:
        return "–"
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{nanoseconds} ns"
