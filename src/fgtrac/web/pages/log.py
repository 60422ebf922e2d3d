"""The log: its heads, its entries page by page, the proof between any two sizes, anchors and receipts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.log_view import LogView
from fgtrac.events.schema import KINDS
from fgtrac.web.asked import Answer, Asked, Page
from fgtrac.web.command import command_line

PER_PAGE = 50
MAX_RECEIPTS = 200


def show(asked: Asked) -> Answer:
    """Heads and entries; with `first` and `second` also the proof between those sizes, with `kind` one kind only."""
    path = asked.site.path_of(asked.name)
    view = LogView(path)
    kind = asked.query.get("kind", "")
    numbers, is_read = _numbers(asked, view, kind)
    page = asked.number("page", 1, least=1)
    first = (page - 1) * PER_PAGE
    if page > 1 and is_read and first >= len(numbers):
        raise ValueError(f"page={page}: there are {max(1, -(-len(numbers) // PER_PAGE))} pages")
    heads, head_count = view.heads()
    receipts = view.receipts()
    consistency, why_not = _consistency(asked, view)
    data: dict[str, Any] = {
        "size": view.head.size,
        "root": view.head.root,
        "origin": view.head.origin,
        "heads": [asdict(head) for head in heads],
        "head_count": head_count,
        "kind": kind,
        "kinds": list(KINDS),
        "is_read": is_read,
        "entries": [asdict(line) for line in view.lines([int(n) for n in numbers[first : first + PER_PAGE]])],
        "entry_count": len(numbers),
        "page": page,
        "pages": max(1, -(-len(numbers) // PER_PAGE)),
        "consistency": consistency,
        "no_consistency": why_not,
        "receipts": receipts[:MAX_RECEIPTS],
        "receipt_count": len(receipts),
    }
    of_kind = f" WHERE kind = '{kind}'" if kind else ""
    select = f"SELECT * FROM entries{of_kind} ORDER BY number LIMIT {PER_PAGE} OFFSET {first}"
    command = command_line("sql", path, select, *asked.site.with_key)
    return Answer("Log", "log.html", data, command, status=400 if why_not else 200)


def _numbers(asked: Asked, view: LogView, kind: str) -> tuple[Sequence[int] | NDArray[np.intp], bool]:
    """The numbers of the entries in question, and whether the log was read by now, as far as that matters."""
    if not kind:
        return range(view.head.size), True
    if kind not in KINDS:
        raise ValueError(f"kind={kind:.40} is none of {', '.join(KINDS)}")
    found = asked.site.overview(asked.name, asked.patience_s).known()
    if found is None:
        return (), False
    numbers = found.numbers_of(kind)
    return numbers[numbers < view.head.size], True  # the log may have grown since the view was made


def _consistency(asked: Asked, view: LogView) -> tuple[dict[str, Any] | None, str]:
    """The proof between two sizes, if it was asked for; else why two sizes have none."""
    if not (asked.query.get("first") or asked.query.get("second")):
        return None, ""
    try:
        sizes = asked.number("first", 1), asked.number("second", view.head.size)
        return asdict(view.consistency(*sizes)), ""
    except ValueError as error:
        return None, str(error)


PAGES = (Page("/run/{name}/log", show, nav="Log", needs_trace=False),)
