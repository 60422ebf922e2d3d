"""A trace's log over HTTP: the read API of c2sp.org/tlog-tiles v0.1.0, and nothing else of the folder.

    /checkpoint                      the newest tree head    text/plain; charset=utf-8   asked for anew each time
    /tile/<L>/<N>[.p/<W>]            hashes                  application/octet-stream    kept for good
    /tile/entries/<N>[.p/<W>]        entries, or gzipped     application/octet-stream    kept for good

GET and HEAD. Every file is read when it is asked for, so the trace may be recorded and sealed meanwhile. A partial tile
that is no longer there is cut from a wider one: whoever has read a tree head can read all of it, whatever was sealed
since. Nothing is served that the newest head does not cover. There are no ETags and no ranges: a tree head is small,
and a tile never changes.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from fgtrac.api.prior import run_entry, trace_id_of
from fgtrac.errors import FormatError, not_installed
from fgtrac.store.trace_dir import ORIGIN_PREFIX, TraceDir
from fgtrac.tlog.merkle import HASH_BYTES
from fgtrac.tlog.note import Verifier, format_vkey, parse_note
from fgtrac.tlog.tiles import ENTRIES, WIDTH, Tile, decode_bundle, encode_bundle, parse_tile_path, read_entries
from fgtrac.verify.keys import last_named_key

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_TRIES = 3  # to find a tile while seals put wider ones in the place of others
_EVERYWHERE = {"x-content-type-options": "nosniff"}
_NEVER_KEPT = {"cache-control": "no-store"}  # nor is a 404: the tile may come to be
_KEPT = {"cache-control": "public, max-age=31536000, immutable"}


def log_vkey(trace: TraceDir) -> str:
    """The C2SP verifier key of a trace's log as its own entries name it, which is no reason to trust it.

    FormatError where there is no `run` entry, FileNotFoundError or FormatError for a damaged log.
    """
    named = Verifier(ORIGIN_PREFIX + trace_id_of(trace).hex(), run_entry(trace)["public_key"])
    note, head = trace.head_note(), trace.head()
    if note is None or head is None or named.key_id in {line.key_id for line in parse_note(note).signatures}:
        return format_vkey(named)
    newest = last_named_key(read_entries(trace, 0, head.size, head.size))  # the key was replaced
    return format_vkey(Verifier(named.name, newest) if newest else named)


def tiles_app(trace: TraceDir, *, cors: bool = False) -> Starlette:
    """The read API as an ASGI application. With `cors`, pages of any origin may read it.

    ValueError where starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.responses import Response
        from starlette.routing import Route
    except ModuleNotFoundError as error:
        raise not_installed("serving a log needs", error.name, "web") from error
    everywhere = _EVERYWHERE | ({"access-control-allow-origin": "*"} if cors else {})

    def answer(request: Request) -> Response:
        raw_path = request.scope["raw_path"].decode("latin-1")  # not decoded: a name has one spelling
        try:
            data, media_type, headers = _find(trace, raw_path.removeprefix("/"), _accepts_gzip(request))
        except (FileNotFoundError, FormatError):
            return Response("not found\n", 404, _NEVER_KEPT | everywhere, "text/plain")
        return Response(data, 200, headers | everywhere, media_type)

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET"])])  # and HEAD; 405 for any other


def _find(trace: TraceDir, path: str, may_gzip: bool) -> tuple[bytes, str, dict[str, str]]:
    """A resource's bytes, media type and headers. FileNotFoundError or FormatError for what is none."""
    if path == "checkpoint":
        return _read(trace, path), "text/plain", _NEVER_KEPT
    tile = parse_tile_path(path)
    data = _read_tile(trace, tile)
    if tile.level != ENTRIES:  # hashes do not compress
        return data, "application/octet-stream", _KEPT
    headers = _KEPT | {"vary": "accept-encoding"}
    if may_gzip:
        data, headers = gzip.compress(data, mtime=0), headers | {"content-encoding": "gzip"}
    return data, "application/octet-stream", headers


def _read_tile(trace: TraceDir, tile: Tile) -> bytes:
    """A tile that the newest head covers: its file, or the beginning of the narrowest wider one that is there."""
    head = trace.head()
    if head is None or tile.number * WIDTH + tile.width > head.size >> 8 * max(tile.level, 0):
        raise FileNotFoundError(f"no head has {tile.path} yet")
    for _ in range(_TRIES):
        for width in _widths(trace, tile):
            with suppress(FileNotFoundError):
                return _cut(_read(trace, replace(tile, width=width).path), tile, width)
    raise FileNotFoundError(f"{trace.path} has no {tile.path}")


def _widths(trace: TraceDir, tile: Tile) -> Iterator[int]:
    """A tile's width, those of the wider partial ones that lie there by then, ascending, and that of the full one."""
    yield tile.width
    if tile.width < WIDTH:
        with suppress(FileNotFoundError, NotADirectoryError):
            names = os.listdir((trace.path / tile.path).parent)
            yield from [width for width in range(tile.width + 1, WIDTH) if str(width) in names]
        yield WIDTH


def _cut(data: bytes, tile: Tile, width: int) -> bytes:
    """The beginning of a tile that has `width` elements. FormatError where it has not, if it is cut at all."""
    if width == tile.width:
        return data
    if tile.level == ENTRIES:
        return encode_bundle(decode_bundle(data, width)[: tile.width])
    if len(data) != width * HASH_BYTES:
        raise FormatError(f"a tile of {width} hashes has {len(data)} bytes, not {width * HASH_BYTES}")
    return data[: tile.width * HASH_BYTES]


def _read(trace: TraceDir, path: str) -> bytes:
    """A plain file of the trace; a link, also on the way to it, is as good as nothing there."""
    whole = trace.path.resolve() / path
    if whole.resolve() != whole:
        raise FileNotFoundError(f"{path} lies behind a link")
    return trace.read(path)


def _accepts_gzip(request: Request) -> bool:
    """Whether a client names gzip, or anything, without refusing it (`;q=0`): RFC 9110 section 12.5.3."""
    wishes = {}
    for wish in ",".join(request.headers.getlist("accept-encoding")).lower().split(","):
        coding, _, weight = wish.replace(" ", "").partition(";q=")
        wishes[coding] = weight.strip("0.") != "" or weight == ""
    return wishes.get("gzip", wishes.get("*", False))
