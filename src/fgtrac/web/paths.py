"""What a request's path and query say, read strictly: one spelling for each page, and nothing that leads elsewhere."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

from fgtrac.web.asked import RESERVED, NotThereError, Page

NAME = "{name}"
NO_PAGE = "there is no such page; the first page lists the runs"
MAX_QUERY_BYTES = 4096
MAX_PATH = 4096


def read_query(raw: bytes) -> dict[str, str]:
    """The query's text by name. ValueError for what is too long, or says one thing twice."""
    if len(raw) > MAX_QUERY_BYTES:
        raise ValueError(f"a query of {len(raw):,} bytes; the most is {MAX_QUERY_BYTES:,}")
    found: dict[str, str] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True, errors="replace"):
        if name in found:
            raise ValueError(f"{name:.40} is given twice; give it once")
        found[name] = value
    return found


def read_path(raw_path: bytes) -> list[str]:
    """A path's parts as they were sent. NotThereError for what is no page's address, however it is written: empty
    parts, dots, an encoded slash, a zero byte."""
    text = raw_path.decode("latin-1").partition("?")[0].removeprefix("/")
    parts = text.split("/")
    decoded = [unquote(part, errors="replace") for part in parts]
    if text and (len(text) > MAX_PATH or any(p in ("", ".", "..") or "/" in p or "\0" in p for p in decoded)):
        raise NotThereError(NO_PAGE)
    return parts


def match(page: Page, parts: list[str]) -> dict[str, str] | None:
    """What a path's parts say for a page's words in braces, decoded; None where it is another page's. The fixed words
    are compared as they were sent: `address` writes a trace's name so that no part of it equals one."""
    wanted = page.path.removeprefix("/").split("/")
    if NAME in wanted:
        more = len(parts) - len(wanted) + 1
        if more < 1:
            return None
        at = wanted.index(NAME)
        name = "/".join(parts[at : at + more])
        if more > 1 and RESERVED & set(parts[at : at + more]):
            return None
        parts = [*parts[:at], name, *parts[at + more :]]
    if len(parts) != len(wanted):
        return None
    found = {}
    for said, meant in zip(parts, wanted, strict=True):
        if meant.startswith("{"):
            found[meant[1:-1]] = unquote(said, errors="surrogateescape")
        elif said != meant:
            return None
    return found


def file_name(text: str) -> str:
    """A file's name for a header: letters, digits, dot, dash and underscore."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in text)[:120]
