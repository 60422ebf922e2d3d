"""`fgtrac ui`: a trace, or a folder of traces, as pages that only read. Every page's data is there as JSON too.

    /PAGE                 HTML; ?format=json gives the data of the same page
    /static/FILE          the style sheet and the script, which is small and needs no build

GET and HEAD. No request leaves this machine: pages name nothing outside, and a browser is told to load nothing else.
A page is a function in fgtrac.web.pages; what it raises becomes one clear page, and never a stack trace.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode

from fgtrac.web import guard
from fgtrac.web.asked import RESERVED, Answer, Asked, Download, Elsewhere, NotThereError, Page
from fgtrac.web.listening import missing
from fgtrac.web.pages import runs, verdict
from fgtrac.web.plain_data import plain
from fgtrac.web.problems import Problem, explain
from fgtrac.web.site import Site
from fgtrac.web.templating import STATIC, Templates, static_file

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PAGES: tuple[Page, ...] = (  # a page module each, in the order of the navigation
    *runs.PAGES,
    *verdict.PAGES,
)
NAME = "{name}"
RESERVED.update(part for page in PAGES for part in page.path.split("/") if part and not part.startswith("{"))
NO_PAGE = "there is no such page; the first page lists the runs"
MAX_QUERY_BYTES = 4096
MAX_PATH = 4096


def explorer_app(
    place: Path, *, key: str | None = None, token: str | None = None, is_local: bool = True, given: Any = None
) -> Starlette:
    """The explorer of a trace or a folder as an ASGI application.

    With `is_local`, whoever names another machine in the Host header is refused. With `token`, whoever does not have it
    is. `key` names the key whose signatures count, `given` is the user's own data. ValueError where starlette or jinja2
    is not installed, or the token can be guessed; for `place` as Site.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ModuleNotFoundError as error:
        raise missing(error, "the explorer", "ui") from error
    if token is not None:
        guard.check_token(token)
    elif not is_local:
        raise ValueError("whoever reaches this address can read the traces; set a token")
    explorer = _Explorer(Site(place, key), Templates(), token, is_local, given)
    return Starlette(routes=[Route("/{path:path}", explorer)])


class _Explorer:
    """The application: looks who asks, finds the page, and gives its answer in the form that is asked for."""

    def __init__(self, site: Site, templates: Templates, token: str | None, is_local: bool, given: Any) -> None:
        self._site = site
        self._templates = templates
        self._token = token
        self._is_local = is_local
        self._given = given

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.concurrency import run_in_threadpool
        from starlette.requests import Request

        response = await run_in_threadpool(self.answer, Request(scope))
        await response(scope, receive, send)

    def answer(self, request: Request) -> Response:
        """The answer to a request, whatever it asks for."""
        wants_json = False
        try:
            refused = self._refuse(request)
            if refused is not None:
                return refused
            query = _query(request.scope["query_string"])
            wants_json = query.pop("format", "html") == "json"
            parts = _parts(request.scope["raw_path"])
            if parts[0] == "static" and len(parts) == 2 and parts[1] in STATIC:
                return self._respond(static_file(parts[1]), media_type=STATIC[parts[1]])
            return self._page(parts, query, wants_json)
        except Exception as error:  # noqa: BLE001  a fault of a page is logged, and one clear page like the others
            return self._problem(explain(error), wants_json)

    def _refuse(self, request: Request) -> Response | None:
        """The answer to whoever may not ask, or not so; None to all others."""
        if request.method not in ("GET", "HEAD"):
            response = self._problem(Problem(405, "the explorer only reads: it answers GET and HEAD"))
            response.headers["allow"] = "GET, HEAD"
            return response
        hosts = request.headers.getlist("host")
        if self._is_local and not (len(hosts) == 1 and guard.names_loopback(hosts[0])):
            words = "this is asked of another machine than this one; open the address that fgtrac ui printed"
            return self._problem(Problem(403, words))
        if self._token is None:
            return None
        pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in pairs if name == "token"]
        if given and guard.is_token(given[0], self._token):
            rest = urlencode([(name, value) for name, value in pairs if name != "token"])
            path = "/" + request.scope["raw_path"].decode("latin-1").lstrip("/\\").replace("\\", "%5C")
            response = self._respond(b"", 303)
            response.headers["location"] = path + ("?" + rest if rest else "")
            response.headers["set-cookie"] = guard.cookie_for(self._token)
            return response
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if any(guard.is_token(one, self._token) for one in (request.cookies.get(guard.COOKIE, ""), bearer)):
            return None
        return self._problem(Problem(401, "this explorer asks for a token; open the address that fgtrac ui printed"))

    def _page(self, parts: list[str], query: dict[str, str], wants_json: bool) -> Response:
        """The answer of the page that stands at this path. A page about a trace has it for itself meanwhile."""
        for page in PAGES:
            path = _match(page, parts)
            if path is None:
                continue
            name = path.pop("name", "")
            asked = Asked(self._site, path, query, name, given=self._given)
            if not name:
                return self._give(page.show(asked), wants_json, page)
            self._site.path_of(name)
            if not page.needs_trace:
                return self._give(page.show(asked), wants_json, page, name)
            with self._site.opened(name) as trace:
                return self._give(page.show(replace(asked, found=trace)), wants_json, page, name)
        raise NotThereError(NO_PAGE)

    def _give(self, answer: Answer | Download | Elsewhere, wants_json: bool, page: Page, name: str = "") -> Response:
        if isinstance(answer, Download):
            response = self._respond(answer.data, media_type=answer.media_type)
            if answer.filename:
                response.headers["content-disposition"] = f'attachment; filename="{_file_name(answer.filename)}"'
            return response
        if isinstance(answer, Elsewhere):
            response = self._respond(b"", 303)
            response.headers["location"] = answer.to
            return response
        data = plain(answer.data)
        if wants_json:
            return self._json(data, answer.status)
        standing = self._site.standing(name).as_json() if name else None
        return self._html(answer, data, name, page, standing)

    def _html(
        self, answer: Answer, data: Any, name: str = "", page: Page | None = None, standing: Any = None
    ) -> Response:
        nav = [(one.nav, one.path.removeprefix(f"/run/{NAME}").strip("/")) for one in PAGES if one.nav]
        text = self._templates.render(
            answer.template,
            answer.pictures,
            title=answer.title,
            data=data,
            command=answer.command,
            name=name,
            nav=nav,
            here=page.nav if page else "",
            searches=any(one.path.endswith("/find") for one in PAGES),
            standing=standing,
        )
        return self._respond(text.encode("utf-8", "replace"), answer.status, "text/html; charset=utf-8")

    def _problem(self, problem: Problem, wants_json: bool = False) -> Response:
        """What went wrong: a page, or the same as JSON."""
        if wants_json:
            return self._json({"error": problem.as_json()}, problem.status)
        answer = Answer(problem.title, "problem.html", problem.as_json(), status=problem.status)
        return self._html(answer, answer.data)

    def _json(self, data: Any, status: int) -> Response:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1)
        return self._respond(text.encode("utf-8", "replace"), status, "application/json")

    def _respond(self, data: bytes, status: int = 200, media_type: str = "text/plain; charset=utf-8") -> Response:
        from starlette.responses import Response

        return Response(data, status, guard.HEADERS, media_type)


def _query(raw: bytes) -> dict[str, str]:
    """The query's text by name. ValueError for what is too long, or says one thing twice."""
    if len(raw) > MAX_QUERY_BYTES:
        raise ValueError(f"a query of {len(raw):,} bytes; the most is {MAX_QUERY_BYTES:,}")
    found: dict[str, str] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True, errors="replace"):
        if name in found:
            raise ValueError(f"{name:.40} is given twice; give it once")
        found[name] = value
    return found


def _parts(raw_path: bytes) -> list[str]:
    """A path's parts as they were sent. NotThereError for what is no page's address, however it is written: empty
    parts, dots, an encoded slash, a zero byte."""
    text = raw_path.decode("latin-1").partition("?")[0].removeprefix("/")
    parts = text.split("/")
    decoded = [unquote(part, errors="replace") for part in parts]
    if text and (len(text) > MAX_PATH or any(p in ("", ".", "..") or "/" in p or "\0" in p for p in decoded)):
        raise NotThereError(NO_PAGE)
    return parts


def _match(page: Page, parts: list[str]) -> dict[str, str] | None:
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
            found[meant[1:-1]] = unquote(said, errors="replace")
        elif said != meant:
            return None
    return found


def _file_name(text: str) -> str:
    """A file's name for a header: letters, digits, dot, dash and underscore."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in text)[:120]
