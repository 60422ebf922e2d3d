"""Text that a log or a vault holds, made safe for a line that people read."""

from __future__ import annotations


def one_line(text: str) -> str:
    """The text with what would end its line, move a terminal's cursor or not be seen written as Python escapes it:
    control and format characters (Unicode categories C and Z, but for the space)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
