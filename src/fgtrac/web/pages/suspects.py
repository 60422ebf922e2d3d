"""Suspects: training samples that may be mislabelled, to be looked at, marked in the browser and taken away as CSV.

The marks stay in the browser: the explorer only reads. The list is worked out beside the page, once for each state of
the trace.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fgtrac.api.suspects import COLUMNS, SuspectList
from fgtrac.api.trace import Trace
from fgtrac.drawing.html import short
from fgtrac.errors import ScoreError
from fgtrac.score.suspects import MEASURES
from fgtrac.web.asked import Answer, Asked, Download, NotThereError, Page, address
from fgtrac.web.beside import Finding
from fgtrac.web.command import command_line
from fgtrac.web.pictures import pictures_of

MOST = 1000  # suspects that are listed; `fgtrac suspects -o` writes all
PAGE_SAMPLES = 50
HOW_TO_SCORE = "give the training data to run.score_with, or: fgtrac score TRACE --with FILE.py:FUNCTION"


def show(asked: Asked) -> Answer:
    """The list by one of the measures, as far as it is known, filtered; the JSON has all that the filter leaves."""
    by, path = _measure(asked), asked.site.path_of(asked.name)
    with asked.site.opened(asked.name) as trace:
        trace_id = trace.id.hex()
    finding = _finding(asked, by)
    data: dict[str, Any] = {"trace_id": trace_id, "by": by, "measures": list(MEASURES), "most": MOST}
    data |= {"columns": list(COLUMNS), "done": finding.done, "total": finding.total, "why_none": ""}
    command = command_line("suspects", path, "--by", by, "--top", MOST)
    try:
        found: SuspectList | None = finding.known()
    except ScoreError as reason:
        found, data["why_none"] = None, f"{reason}; {HOW_TO_SCORE}"
    data["is_computing"] = found is None and not data["why_none"]
    if found is not None:
        data |= _told(asked, found, by)
    return Answer("Suspects", "suspects.html", data, command)


def as_csv(asked: Asked) -> Download:
    """The whole list as CSV, with the user's own keys."""
    found: SuspectList | None = _finding(asked, _measure(asked)).known()
    if found is None:
        raise NotThereError("the list is still being worked out; the page of suspects says when it is there")
    return Download(found.csv().encode("utf-8", "replace"), "text/csv; charset=utf-8", "suspects.csv")


def _measure(asked: Asked) -> str:
    by = asked.query.get("by") or MEASURES[1]
    if by not in MEASURES:
        raise ValueError(f"by={by:.40} is none of {', '.join(MEASURES)}")
    return by


def _finding(asked: Asked, by: str) -> Finding:
    path, state = asked.site.path_of(asked.name), asked.site.state(asked.name)
    return asked.site.scoring.of(path, state, f"suspects {by}", partial(_list, by), asked.patience_s)


def _list(by: str, trace: Trace, progress: Callable[[int, int], None]) -> SuspectList:
    return trace.suspects(MOST, by=by, progress=progress)


def _told(asked: Asked, found: SuspectList, by: str) -> dict[str, Any]:
    """The rows that the filter leaves, a page of them with pictures, and what the list rests on."""
    text, label, dataset = (asked.query.get(name, "") for name in ("text", "label", "dataset"))
    rows = [
        s.as_json() | {"words": short(s.row.words)}
        for s in found.suspects
        if (not text or text.casefold() in s.row.words.casefold() or s.row.id.hex().startswith(text.casefold()))
        and label in ("", str(s.row.label))
        and dataset in ("", s.row.dataset)
    ]
    pages = max(1, -(-len(rows) // PAGE_SAMPLES))
    page = min(asked.number("page", 1, least=1), pages)
    start = (page - 1) * PAGE_SAMPLES

    def to(number: int) -> str:
        return address("run", asked.name, "suspects", by=by, text=text, label=label, dataset=dataset, page=number)

    return {
        "suspects": rows,
        "start": start,
        "stop": start + PAGE_SAMPLES,
        "page": page,
        "pages": pages,
        "previous": to(page - 1) if page > 1 else None,
        "next": to(page + 1) if page < pages else None,
        "filter": {"text": text, "label": label, "dataset": dataset},
        "labels": sorted({s.row.label for s in found.suspects if s.row.label is not None}),
        "datasets": sorted({s.row.dataset for s in found.suspects}),
        "listed": len(found.suspects),
        "training_samples": found.rows,
        "basis": found.basis,
        "fidelity": found.as_json()["fidelity"],
        "thumbnails": pictures_of(asked, [row["id"] for row in rows[start : start + PAGE_SAMPLES]]),
    }


PAGES = (
    Page("/run/{name}/suspects", show, nav="Suspects", needs_trace=False),
    Page("/run/{name}/suspects.csv", as_csv, needs_trace=False),
)
