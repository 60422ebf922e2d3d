"""All samples of a run, filtered, sorted and a page at a time: as a grid of pictures, or as a table.

The tables that it asks are built beside the pages, where they are not in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fgtrac.api.one_sample import has_vault, names_of, seems_scored
from fgtrac.api.trace import Trace
from fgtrac.web.asked import Answer, Asked, Page, address
from fgtrac.web.command import command_line
from fgtrac.web.pictures import pictures_of
from fgtrac.web.sample_query import ROLE_WORDS, SORTS, USES, SampleQuery, parse_query
from fgtrac.web.site import Site
from fgtrac.web.thumbnails import Thumbnails

if TYPE_CHECKING:
    from fgtrac.query.views import Views

PAGE_SAMPLES = 60
MOST_SUSPECTS = 10_000  # of more, the first so many stand in order
MOST_DATASETS = 500  # that a filter offers
NO_FACTORS = "the trace has no factors of its training samples (run.score_with)"


def show(asked: Asked) -> Answer:
    """The samples that the filters of the address leave, sorted as it says."""
    wanted = parse_query(asked.query, names=has_vault(asked.trace))
    shape = "table" if asked.query.get("view") == "table" else "grid"
    number = asked.number("page", 1, least=1, most=10**8) - 1
    no_suspicion = "" if seems_scored(asked.trace) else NO_FACTORS
    if wanted.sort == "suspicion" and no_suspicion:
        raise ValueError(f"nothing is known of suspicion here: {no_suspicion}")
    path, state = asked.site.path_of(asked.name), asked.site.state(asked.name)
    tables = asked.site.tables.of(path, state, "tables", partial(_tables, asked.site), asked.patience_s)
    ranks = None
    if wanted.sort == "suspicion":
        ranks = asked.site.scoring.of(path, state, "self-influence", _suspects, asked.patience_s)
    views, suspects = tables.known(), None if ranks is None else ranks.known()
    data: dict[str, Any] = {
        "query": wanted.as_json() | {"view": shape},
        "roles": list(ROLE_WORDS),
        "sorts": [{"word": word, "called": called} for word, (called, _) in SORTS.items()],
        "uses": [{"word": word, "called": called} for word, (called, _) in USES.items()],
        "no_suspicion": no_suspicion,
        "has_names": has_vault(asked.trace),
        "has_pictures": isinstance(asked.given, Thumbnails),
    }
    data["is_computing"] = views is None or (ranks is not None and suspects is None)
    if data["is_computing"]:
        late = tables if views is None or ranks is None else ranks
        data |= {"done": late.done, "total": late.total, "datasets": [], "count": None}
    else:
        data |= _found(asked, views, wanted, shape, number, suspects)
    command = command_line("sql", path, wanted.written_out(number, PAGE_SAMPLES), *asked.site.with_key)
    return Answer("Samples", "samples.html", data, command)


def _tables(site: Site, trace: Trace, progress: Callable[[int, int], None]) -> Views:
    """The trace's tables, built."""
    views = trace.views(progress, engine=site.engine, memory_bytes=site.memory_bytes)
    views.count("samples")
    return views


def _suspects(trace: Trace, progress: Callable[[int, int], None]) -> dict[str, list[Any]]:
    """The ids and self-influences of the most suspicious training samples."""
    found = trace.self_influence(progress=progress)
    order = (-found.scores).argsort(kind="stable")[:MOST_SUSPECTS]
    ids = [one.tobytes().hex() for one in found.ids[order]]
    return {"id": ids, "suspicion": [float(score) for score in found.scores[order]]}


def _found(
    asked: Asked, views: Views, wanted: SampleQuery, shape: str, number: int, suspects: dict[str, list[Any]] | None
) -> dict[str, Any]:
    """The part of the samples that the page shows, and where the others are."""
    count = int(views.query(*wanted.counting())[0]["n"])
    pages = max(1, -(-count // PAGE_SAMPLES))
    if number >= pages:
        raise ValueError(f"page={number + 1}: there are {pages} pages")
    rows = views.query(*wanted.page(number, PAGE_SAMPLES, suspects))
    called = names_of(asked.trace, [bytes.fromhex(row["id"]) for row in rows])
    drawn = pictures_of(asked, [row["id"] for row in rows]) or {}
    for row, name in zip(rows, called, strict=True):
        row |= {"name": name, "thumbnail": drawn.get(row["id"])}
    return {
        "size": views.size,
        "pending": asked.trace.pending,
        "rests_on": views.rests_on,
        "samples": rows,
        "count": count,
        "page": number + 1,
        "pages": pages,
        "datasets": [row["dataset"] for row in views.query(_DATASETS)],
        "links": _links(asked.name, wanted, shape, number, pages),
    }


_DATASETS = f"SELECT DISTINCT dataset FROM samples ORDER BY dataset LIMIT {MOST_DATASETS}"


def _links(name: str, wanted: SampleQuery, shape: str, number: int, pages: int) -> dict[str, str | None]:
    """The addresses of the other pages, and of the other shape."""

    def to(page: int, view: str = shape) -> str:
        said = {**wanted.as_json(), "view": "" if view == "grid" else view, "page": page + 1 if page else ""}
        said["sort"] = "" if wanted.sort == "uses" else wanted.sort
        return address("run", name, "samples", **said)

    return {
        "first": to(0) if number else None,
        "previous": to(number - 1) if number else None,
        "next": to(number + 1) if number + 1 < pages else None,
        "last": to(pages - 1) if number + 1 < pages else None,
        "grid": to(number, "grid"),
        "table": to(number, "table"),
    }


PAGES = (Page("/run/{name}/samples", show, nav="Samples"),)
