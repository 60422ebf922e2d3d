"""The first page: the runs of the folder, from their heads and newest entries, and which of them were checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fgtrac.api.runs import DAMAGED, UNREADABLE, RunLine, list_runs
from fgtrac.web.asked import Answer, Asked, Page
from fgtrac.web.command import command_line

SORTS: dict[str, Callable[[RunLine], tuple[Any, ...]]] = {
    "name": lambda line: (),
    "began": lambda line: (-(line.began or 0),),
    "loss": lambda line: (line.best_loss is None, line.best_loss or 0.0),
    "steps": lambda line: (-(line.steps or 0),),
}


def show(asked: Asked) -> Answer:
    """A line for each run, or each with `text` in its name; nothing is verified for it. A trace that is damaged is a
    line that says so."""
    order = asked.query.get("sort", "name")
    if order not in SORTS:
        raise ValueError(f"sort={order:.40} is none of {', '.join(SORTS)}")
    place, text = asked.site.place, asked.query.get("text", "")
    lines = sorted(list_runs(place), key=lambda line: (*SORTS[order](line), line.name))
    shown = [_line(asked, line) for line in lines if text.casefold() in line.name.casefold()]
    data = {"runs": shown, "run_count": len(lines), "sorts": list(SORTS), "sort": order, "text": text}
    return Answer("Runs", "runs.html", data, command_line("runs", place))


def _line(asked: Asked, line: RunLine) -> dict[str, object]:
    name = asked.site.only or line.name
    is_damaged = line.state in (DAMAGED, UNREADABLE)
    standing = asked.site.look(name)
    check = {"state": standing.state, "short": standing.short, "words": standing.words, "checked": standing.checked}
    return {**line.as_json(), "name": name, "is_damaged": is_damaged, "check": check}


PAGES = (Page("/", show),)
