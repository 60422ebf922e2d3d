"""All samples of a run, filtered, sorted and a page at a time: as a grid of pictures, or as a table."""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

from fgtrac.api.one_sample import has_vault, names_of, seems_scored
from fgtrac.api.trace import Trace
from fgtrac.errors import ScoreError
from fgtrac.web.asked import Answer, Asked, Page, address
from fgtrac.web.command import command_line
from fgtrac.web.sample_query import ROLE_WORDS, SORTS, SampleQuery, parse_query
from fgtrac.web.thumbnails import Thumbnails

PAGE_SAMPLES = 60
MOST_SUSPECTS = 10_000  # of more, the first so many stand in order
MOST_DATASETS = 500  # that a filter offers
DRAWING_S = 1.0  # for all pictures of a page together
_suspicion: WeakKeyDictionary[Trace, dict[str, list[Any]] | str] = WeakKeyDictionary()


def show(asked: Asked) -> Answer:
    """The samples that the filters of the address leave, sorted as it says."""
    trace, number = asked.trace, asked.number("page", 1, least=1, most=10**8) - 1
    wanted = parse_query(asked.query, names=has_vault(trace))
    shape = "table" if asked.query.get("view") == "table" else "grid"
    no_suspicion = _why_no_suspicion(trace)
    if wanted.sort == "suspicion" and no_suspicion:
        raise ValueError(f"nothing is known of suspicion here: {no_suspicion}")
    views = trace.views()
    count = int(views.query(*wanted.counting())[0]["n"])
    rows = views.query(*wanted.page(number, PAGE_SAMPLES, _suspects(trace) if wanted.sort == "suspicion" else None))
    called = names_of(trace, [bytes.fromhex(row["id"]) for row in rows])
    thumbnails = _thumbnails(asked, rows)
    for row, name, thumbnail in zip(rows, called, thumbnails, strict=True):
        row |= {"name": name, "thumbnail": thumbnail}
    data = {
        "query": wanted.as_json() | {"view": shape},
        "samples": rows,
        "count": count,
        "page": number + 1,
        "pages": max(1, -(-count // PAGE_SAMPLES)),
        "datasets": [row["dataset"] for row in views.query(_DATASETS)],
        "roles": list(ROLE_WORDS),
        "sorts": [{"word": word, "called": called} for word, (called, _) in SORTS.items()],
        "no_suspicion": no_suspicion,
        "has_names": has_vault(trace),
        "has_pictures": isinstance(asked.given, Thumbnails),
        "links": _links(asked.name, wanted, shape, number, max(1, -(-count // PAGE_SAMPLES))),
    }
    command = command_line("sql", asked.site.path_of(asked.name), wanted.written_out(number, PAGE_SAMPLES))
    return Answer("Samples", "samples.html", data, command)


_DATASETS = f"SELECT DISTINCT dataset FROM samples ORDER BY dataset LIMIT {MOST_DATASETS}"


def _links(name: str, wanted: SampleQuery, shape: str, number: int, pages: int) -> dict[str, str | None]:
    """The addresses of the other pages, and of the other shape."""

    def to(page: int, view: str = shape) -> str:
        said = {**wanted.as_json(), "view": "" if view == "grid" else view, "page": page + 1 if page else ""}
        said["sort"] = "" if wanted.sort == "uses" else wanted.sort
        return address("run", name, "samples", **said)

    return {
        "first": to(0) if number else None,
        "previous": to(min(number, pages) - 1) if number else None,
        "next": to(number + 1) if number + 1 < pages else None,
        "last": to(pages - 1) if number + 1 < pages else None,
        "grid": to(number, "grid"),
        "table": to(number, "table"),
    }


def _thumbnails(asked: Asked, rows: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """What can be drawn of each sample within DRAWING_S; what is drawn is remembered, and there at once next time."""
    if not isinstance(asked.given, Thumbnails):
        return [None] * len(rows)
    found: list[dict[str, Any] | None] = []
    end = time.monotonic() + DRAWING_S
    for row in rows:
        in_time = time.monotonic() < end
        found.append(asked.given.of(asked.trace, bytes.fromhex(row["id"])).as_json() if in_time else None)
    return found


def _why_no_suspicion(trace: Trace) -> str:
    """Why samples cannot be sorted by suspicion; empty where they can."""
    return "" if seems_scored(trace) else "the trace has no factors of its training samples (run.score_with)"


def _suspects(trace: Trace) -> dict[str, list[Any]]:
    """The ids and self-influences of the most suspicious training samples; computed once for an opened trace."""
    found = _suspicion.get(trace)
    if found is None:
        try:
            said = trace.self_influence()
        except ScoreError as reason:
            found = str(reason)
        else:
            order = (-said.scores).argsort(kind="stable")[:MOST_SUSPECTS]
            ids = [one.tobytes().hex() for one in said.ids[order]]
            found = {"id": ids, "suspicion": [float(score) for score in said.scores[order]]}
        _suspicion[trace] = found
    if isinstance(found, str):
        raise ValueError(f"nothing is known of suspicion here: {found}")
    return found


PAGES = (Page("/run/{name}/samples", show, nav="Samples"),)
