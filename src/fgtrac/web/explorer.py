"""`fgtrac ui`: a trace, or a folder of traces, as pages that only read. Every page's data is there as JSON too.

    /PAGE                 HTML; ?format=json gives the data of the same page
    /static/FILE          the style sheet and the script, which is small and needs no build

GET and HEAD. No request leaves this machine: pages name nothing outside, and a browser is told to load nothing else.
A page is a function in fgtrac.web.pages; what it raises becomes one clear page, and never a stack trace.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode
from weakref import WeakKeyDictionary

from fgtrac.api.read_by_workers import MEMORY
from fgtrac.errors import not_installed
from fgtrac.web import guard
from fgtrac.web.asked import RESERVED, Answer, Asked, Download, Elsewhere, NotThereError, Page
from fgtrac.web.command import command_line
from fgtrac.web.pages import compare, entry, log, mine, prediction, run, runs, sample, samples, suspects, verdict
from fgtrac.web.paths import NAME, NO_PAGE, file_name, match, read_path, read_query
from fgtrac.web.plain_data import plain
from fgtrac.web.problems import Problem, explain
from fgtrac.web.site import Site
from fgtrac.web.templating import STATIC, Templates, static_file

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PAGES: tuple[Page, ...] = (  # a page module each, in the order of the navigation
    *runs.PAGES,
    *run.PAGES,
    *samples.PAGES,
    *sample.PAGES,
    *prediction.PAGES,
    *suspects.PAGES,
    *mine.PAGES,
    *log.PAGES,
    *entry.PAGES,
    *verdict.PAGES,
    *compare.PAGES,
)
PATIENCE_S, WAIT_S = 0.15, 60.0  # of a page; of JSON and files, of which MOST_WAIT are made at once
MOST_WAIT = 8
RESERVED.update(part for page in PAGES for part in page.path.split("/") if part and not part.startswith("{"))


def explorer_app(
    place: Path,
    *,
    key: str | None = None,
    token: str | None = None,
    is_local: bool = True,
    given: Any = None,
    engine: str | None = None,
    memory_bytes: int = MEMORY,
) -> Starlette:
    """The explorer of a trace or a folder as an ASGI application.

    With `is_local`, whoever names another machine in the Host header is refused. With `token`, whoever does not have it
    is. `key` names the key whose signatures count, `given` is the user's own data, `engine` and `memory_bytes` say how
    the tables of each trace are built, as `Trace.views` takes them. `app.state.site.stop()` ends what is under way
    beside the pages. ValueError where starlette or jinja2 is not installed, or the token can be guessed; of `place` as
    Site.
    """
    try:
        from starlette.applications import Starlette
    except ModuleNotFoundError as error:
        raise not_installed("the explorer needs", error.name, "ui") from error
    if token is not None:
        guard.check_token(token)
    elif not is_local:
        raise ValueError("whoever reaches this address can read the traces; set a token")
    site = Site(place, key, engine, memory_bytes)
    app = Starlette()
    app.router.default = _Explorer(site, Templates(), token, is_local, given)  # also of a target that is no path
    app.state.site = site
    return app


@dataclass(slots=True)
class _Here:
    """Where a request leads, as far as that is known: its page, the trace that the page is about, the form."""

    page: Page | None = None
    name: str = ""
    query: dict[str, str] = field(default_factory=dict)
    wants_json: bool = False
    waits: bool = False


def _find(parts: list[str]) -> tuple[Page, dict[str, str]]:
    """The page at a path, and its parameters. NotThereError where there is none."""
    found = next(((page, said) for page in PAGES if (said := match(page, parts)) is not None), None)
    if found is None:
        raise NotThereError(NO_PAGE)
    return found


def _waits(scope: Mapping[str, Any]) -> bool:
    """Whether a request is for data, and not for a page that says what is missing of it."""
    try:
        page, _ = _find(read_path(scope["raw_path"]))
        return page.waits and (page.path.endswith(".csv") or read_query(scope["query_string"]).get("format") == "json")
    except (NotThereError, ValueError):
        return False  # the answer says why


class _Explorer:
    """The application: looks who asks, finds the page, and gives its answer in the form that is asked for."""

    def __init__(self, site: Site, templates: Templates, token: str | None, is_local: bool, given: Any) -> None:
        self._site = site
        self._templates = templates
        self._token = token
        self._is_local = is_local
        self._given = given
        self._few: WeakKeyDictionary[Any, CapacityLimiter] = WeakKeyDictionary()  # by event loop

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from anyio import CapacityLimiter, to_thread
        from starlette.requests import Request

        limit, waits = None, _waits(scope)
        if waits:  # in a line of its own: whoever asks for many keeps no page waiting
            limit = self._few.setdefault(asyncio.get_running_loop(), CapacityLimiter(MOST_WAIT))
        response = await to_thread.run_sync(self.answer, Request(scope), waits, limiter=limit)
        await response(scope, receive, send)

    def answer(self, request: Request, waits: bool) -> Response:
        """The answer to a request, whatever it asks for. A page says what is missing; a program, which cannot see that,
        `waits` for what is found out beside the pages."""
        here = _Here(waits=waits)
        try:
            refused = self._refuse(request)
            if refused is not None:
                return refused
            query = read_query(request.scope["query_string"])
            here.wants_json = query.pop("format", "") == "json"
            here.query = query
            parts = read_path(request.scope["raw_path"])
            if parts[0] == "static" and len(parts) == 2 and parts[1] in STATIC:
                return self._respond(static_file(parts[1]), media_type=STATIC[parts[1]])
            return self._give(self._page(parts, here), here)
        except Exception as error:  # noqa: BLE001  a fault of a page is logged, and one clear page like the others
            return self._problem(explain(error), here)

    def _refuse(self, request: Request) -> Response | None:
        """The answer to whoever may not ask, or not so; None to all others."""
        if request.method not in ("GET", "HEAD"):
            response = self._problem(Problem(405, "the explorer only reads: it answers GET and HEAD"), _Here())
            response.headers["allow"] = "GET, HEAD"
            return response
        hosts = request.headers.getlist("host")
        if self._is_local and not (len(hosts) == 1 and guard.names_loopback(hosts[0])):
            words = "this is asked of another machine than this one; open the address that fgtrac ui printed"
            return self._problem(Problem(403, words), _Here())
        if guard.is_embedded(request.headers):
            words = "a page of another site asks for this as a part of itself; open the address that fgtrac ui printed"
            return self._problem(Problem(403, words), _Here())
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
        cookie = request.cookies.get(guard.cookie_name(self._token), "")
        if any(guard.is_token(one, self._token) for one in (cookie, bearer)):
            return None
        words = "this explorer asks for a token; open the address that fgtrac ui printed"
        return self._problem(Problem(401, words), _Here())

    def _page(self, parts: list[str], here: _Here) -> Answer | Download | Elsewhere:
        """What the page that stands at this path answers. A page about a trace has it for itself meanwhile."""
        page, path = _find(parts)
        name = path.pop("name", "")
        until = time.monotonic() + (WAIT_S if here.waits else PATIENCE_S)
        asked = Asked(self._site, path, here.query, name, given=self._given, until=until)
        if name:
            self._site.path_of(name)
        here.page, here.name = page, name
        if not name or not page.needs_trace:
            return page.show(asked)
        with self._site.opened(name, anew=here.waits) as trace:
            return page.show(replace(asked, found=trace))

    def _give(self, answer: Answer | Download | Elsewhere, here: _Here) -> Response:
        """An answer in the form that is asked for."""
        if isinstance(answer, Download):
            response = self._respond(answer.data, media_type=answer.media_type)
            if answer.filename:
                response.headers["content-disposition"] = f'attachment; filename="{file_name(answer.filename)}"'
            return response
        if isinstance(answer, Elsewhere):
            response = self._respond(b"", 303)
            more = ("&" if "?" in answer.to else "?") + "format=json" if here.wants_json else ""
            response.headers["location"] = answer.to + more
            return response
        data = plain(answer.data)
        return self._json(data, answer.status) if here.wants_json else self._html(answer, data, here)

    def _html(self, answer: Answer, data: Any, here: _Here) -> Response:
        nav = [(one.nav, one.path.removeprefix(f"/run/{NAME}").strip("/")) for one in PAGES if one.nav]
        text = self._templates.render(
            answer.template,
            answer.pictures,
            title=answer.title,
            data=data,
            command=answer.command,
            name=here.name,
            nav=nav,
            here=here.page.nav if here.page else "",
            searches=any(one.path.endswith("/find") for one in PAGES),
            standing=self._site.standing(here.name).as_json() if here.name else None,
            json_link="?" + urlencode({**here.query, "format": "json"}),
        )
        return self._respond(text.encode("utf-8", "replace"), answer.status, "text/html; charset=utf-8")

    def _problem(self, problem: Problem, here: _Here) -> Response:
        """What went wrong: a page, or the same as JSON."""
        if here.wants_json:
            return self._json({"error": problem.as_json()}, problem.status)
        answer = Answer(problem.title, "problem.html", problem.as_json(), status=problem.status)
        try:
            if here.name and problem.verdict:
                path = self._site.path_of(here.name)
                answer = replace(answer, command=command_line("verify", path, *self._site.with_key))
            return self._html(answer, answer.data, here)
        except (NotThereError, OSError):  # the trace went while it was looked at
            return self._html(replace(answer, command=""), answer.data, _Here(query=here.query))

    def _json(self, data: Any, status: int) -> Response:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1)
        return self._respond(text.encode("utf-8", "replace"), status, "application/json")

    def _respond(self, data: bytes, status: int = 200, media_type: str = "text/plain; charset=utf-8") -> Response:
        from starlette.responses import Response

        return Response(data, status, guard.HEADERS, media_type)
