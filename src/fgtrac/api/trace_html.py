"""An opened trace as a notebook shows it: what it is and what its newest full seal counts. Nothing of it was checked
but the entries that are named, and it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgtrac.drawing.html import table, verdict_mark
from fgtrac.drawing.notebook import shown

if TYPE_CHECKING:
    from fgtrac.api.trace import Trace

LISTED = 20  # data sets, and kept states


def trace_html(trace: Trace) -> str:
    """Its id, head, entries by kind, data sets and kept model states; never a verdict."""
    seal, timeline = trace._seal, trace._historian.timeline
    about = [
        ("trace", trace.id.hex()),
        ("log", f"{seal.head.size:,} entries"),
        ("root", seal.head.root.hex()),
        ("not in the index yet", trace.pending),
    ]
    datasets = [(e["name"], e.get("rows"), e["id_scheme"]) for _, e in timeline.entries("dataset")]
    kept = [seal.log.event(number) for number, _ in timeline.kept]
    states = [(e["step"], e.get("epoch"), e.get("val_loss"), e["rule"]) for e in kept[-LISTED:]]
    title = "kept model states" + (f", the last {LISTED} of {len(kept):,}" if len(kept) > LISTED else "")
    return shown(
        verdict_mark("not checked", "verify() reads all of it and says what holds"),
        table(("", ""), about),
        table(("kind", "entries"), sorted(seal.event["counts"].items()), caption="entries"),
        table(("data set", "rows", "ids"), datasets[:LISTED], caption="data sets", more=max(0, len(datasets) - LISTED)),
        table(("step", "epoch", "validation loss", "rule"), states, caption=title),
    )
