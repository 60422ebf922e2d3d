"""What a notebook shows of a value (`_repr_html_`): charts and tables with their rules, and the words of its text."""

from __future__ import annotations

from collections.abc import Sequence

from fgtrac.drawing.html import Html, escape, short
from fgtrac.drawing.style import CSS

LONGEST = 20_000  # characters of a text
_RULES = """.fg-shown pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.fg-shown p { margin: 0.25rem 0; }"""


def shown(*pieces: str) -> str:
    """The pieces, each HTML already (`Html`) or text, one below the other with the rules that they need."""
    inside = "".join(piece if isinstance(piece, Html) else f"<p>{escape(piece)}</p>" for piece in pieces if piece)
    return f'<div class="fg-shown"><style>{CSS}{_RULES}</style>{inside}</div>'


def words(text: str) -> Html:
    """A text of several lines as it is; of a very long one the beginning, and how much is missing."""
    more = f"\n... {len(text) - LONGEST:,} more characters" if len(text) > LONGEST else ""
    return Html(f"<pre>{escape(text[:LONGEST])}{more}</pre>")


def listed(lines: Sequence[str]) -> Html:
    """Lines as a list; nothing where there are none."""
    inside = "".join(f"<li>{escape(short(line, LONGEST))}</li>" for line in lines)
    return Html(f"<ul>{inside}</ul>" if inside else "")
