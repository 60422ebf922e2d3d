"""Pieces of HTML: text that is safe inside a page, tables, and the mark of a verdict."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

VERDICTS = {"holds": ("✓", "holds"), "refuted": ("✗", "refuted"), "cannot tell": ("?", "unsure")}  # sign, class
NOT_CHECKED = ("○", "unchecked")
SHOWN = 300  # characters of a text that a chart or a table shows


class Html(str):
    """Text that is HTML already. `escape` and templates (by `__html__`) leave it as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def escape(value: object) -> Html:
    """The value's text as HTML, in elements and in quoted attributes. Characters that cannot be seen, that turn the
    direction of what follows, or that no file can hold are written as Python escapes them."""
    if isinstance(value, Html):
        return value
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    return Html(html.escape(text, quote=True))


def short(text: object, length: int = SHOWN) -> str:
    """The text, or where it is longer its beginning and an ellipsis: at most `length` characters."""
    words = str(text)
    return words if len(words) <= length else words[: length - 1] + "…"


def number(value: float) -> str:
    """A number as people read it: 1,234, 0.0312, 1.2e+30; "not a number" and "infinity" by name."""
    if isinstance(value, int):  # one of any size
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.3e}" if abs(value) < 10**300 else "over 1e+300"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinity" if value > 0 else "minus infinity"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if 1e3 <= abs(value) < 1e15 else f"{value:.4g}"


def link(path: str, words: object) -> Html:
    """A link within the site. ValueError for a path that could lead out of it."""
    return Html(f'<a href="{escape(inner(path))}">{escape(words)}</a>')


def inner(path: str) -> str:
    """The path as it is. ValueError unless it begins with one `/`, or `?` or `#`, and so stays on the site."""
    if not path.startswith(("/", "?", "#")) or path.startswith(("//", "/\\")) or not path.isprintable():
        raise ValueError(f"the link {path!r:.80} leads out of the site; begin it with one /, ? or #")
    return path


def table(
    head: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "", more: int = 0, name: str = ""
) -> Html:
    """A table whose first column names its rows. Numbers stand to the right, None is a dash, bool is yes or no.

    `more`: so many further rows are not shown, which a last line says. `name`: the table's id in the page. ValueError
    for a row of another length than the head.
    """
    if wrong := [len(row) for row in rows if len(row) != len(head)]:
        raise ValueError(f"a row of {wrong[0]} cells under a head of {len(head)}")
    counts = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(head))]
    cells = "".join(
        f'<th scope="col"{_right(is_count)}>{escape(word)}</th>' for word, is_count in zip(head, counts, strict=True)
    )
    lines = ["<tr>" + "".join(map(_cell, row, counts, range(len(row)))) + "</tr>" for row in rows]
    if more or not rows:
        words = f"and {more:,} more" if more else "none"
        lines.append(f'<tr><td class="fg-more" colspan="{len(head)}">{words}</td></tr>')
    own = f' id="{escape(name)}"' if name else ""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(lines)
    return Html(f'<table class="fg-table"{own}>{title}<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>')


def verdict_mark(verdict: object, words: str = "") -> Html:
    """A verdict as a sign, its word and a colour, so that the colour is never the only sign. `verdict` is "holds",
    "refuted" or "cannot tell"; any other text (such as "not checked yet") is grey, and never green."""
    said = str(verdict)
    sign, kind = VERDICTS.get(said, NOT_CHECKED)
    more = f" {escape(short(words))}" if words else ""
    return Html(
        f'<span class="fg-verdict fg-{kind}"><span aria-hidden="true">{sign}</span>&nbsp;'
        f"<strong>{escape(short(said, 80))}</strong>{more}</span>"
    )


def _cell(value: Any, is_count: bool, place: int) -> str:
    """One cell; the first of a row names it, and a column of numbers alone stands to the right."""
    text = _words(value)
    return f"<td{_right(is_count)}>{text}</td>" if place else f'<th scope="row"{_right(is_count)}>{text}</th>'


def _words(value: Any) -> str:
    if value is None:
        return '<span class="fg-none">–</span>'
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(number(value) if _is_number(value) else value if isinstance(value, Html) else short(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _right(is_number: bool) -> str:
    return ' class="fg-number"' if is_number else ""
