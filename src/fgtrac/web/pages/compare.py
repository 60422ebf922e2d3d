"""Two runs side by side: what differs between their settings, samples, batches, losses, states and contributions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fgtrac.api.diff import diff_traces
from fgtrac.api.difference import Difference
from fgtrac.api.runs import list_runs
from fgtrac.query.overview import Overview
from fgtrac.web.asked import Answer, Asked, Page
from fgtrac.web.command import command_line
from fgtrac.web.run_charts import compared_losses


def show(asked: Asked) -> Answer:
    """The runs `a` and `b`; without them, a form that asks for two."""
    a, b = asked.query.get("a", ""), asked.query.get("b", "")
    if not (a and b):
        names = [asked.site.only or line.name for line in list_runs(asked.site.place)]
        return Answer(
            "Compare two runs", "compare.html", {"a": a, "b": b, "names": names, "found": None, "is_read": True}
        )
    site = asked.site
    paths = site.path_of(a), site.path_of(b)
    state = tuple((name, site.state(name)) for name in (a, b))
    making = site.comparisons.of((a, b), state, partial(_compare, *paths), asked.patience_s)
    found: Difference | None = making.known()
    overviews = {name: site.overview(name, asked.patience_s).known() for name in (a, b)}
    data: dict[str, Any] = {"a": a, "b": b, "names": [], "found": None, "is_read": found is not None}
    if found is not None:
        data["found"] = _told(found)
    return Answer("Compare two runs", "compare.html", data, command_line("diff", *paths), pictures=_pictures(overviews))


def _compare(a: Any, b: Any, progress: Any) -> Difference:
    return diff_traces(a, b)


def _told(found: Difference) -> dict[str, Any]:
    return found.as_json() | {"text": found.text().splitlines()}


def _pictures(overviews: Mapping[str, Overview | None]) -> Mapping[str, str]:
    """Their losses in one chart, as far as both logs were read by now."""
    known = {name: one for name, one in overviews.items() if one is not None}
    drawn = compared_losses(known) if len(known) == len(overviews) else ""
    return {"losses": drawn} if drawn else {}


PAGES = (Page("/compare", show),)
