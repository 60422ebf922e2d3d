"""An opened trace as a notebook shows it: what it is and what its newest full seal counts. Nothing of it was checked
but the entries that are named, and it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgtrac.drawing.html import table, verdict_mark
from fgtrac.drawing.notebook import shown

if TYPE_CHECKING:
    from fgtrac.api.trace import Trace

CHECKPOINTS = 20  # that are listed, the last ones


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
    kept = [event for _, event in ((n, seal.log.event(n)) for n, _ in timeline.kept)]
    states = [(e["step"], e.get("epoch"), e.get("val_loss"), e["rule"]) for e in kept[-CHECKPOINTS:]]
    return shown(
        verdict_mark("not checked", "verify() reads all of it and says what holds"),
        table(("", ""), about),
        table(("kind", "entries"), sorted(seal.event["counts"].items()), caption="entries"),
        table(("data set", "rows", "ids"), datasets, caption="data sets"),
        table(("step", "epoch", "validation loss", "rule"), states, caption="kept model states"),
    )
