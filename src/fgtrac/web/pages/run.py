"""A run: its verdict, its losses with the states that were kept, its entries, and what of its samples was used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fgtrac.api.log_view import LogView
from fgtrac.query.overview import MAX_NAMED, Overview, Series
from fgtrac.web.asked import Answer, Asked, Page
from fgtrac.web.command import command_line
from fgtrac.web.run_charts import drawn, loss_charts

MAX_SHOWN = 60  # rows of a table; the JSON has more
MAX_CHECKPOINTS = 2000
MAX_SETTING = 2000  # characters of one setting


def show(asked: Asked) -> Answer:
    """As the log tells it, as far as it was read by now."""
    path = asked.site.path_of(asked.name)
    reading = asked.site.overview(asked.name, asked.patience_s)
    found: Overview | None = reading.known()
    command = command_line("show", path)
    if found is None:
        late = {"is_read": False, "done": reading.done, "total": reading.total}
        return Answer("Run", "run.html", late, command)
    data = told(found) | {"is_read": True, "receipts": LogView(path).receipt_counts()}
    return Answer("Run", "run.html", data, command, pictures=loss_charts(found))


def told(found: Overview) -> dict[str, Any]:
    """An overview as plain data."""
    named = found.named
    return {
        "head": {"size": found.size, "root": found.root},
        "run": _run(found.run),
        "began": found.began,
        "changed": found.changed,
        "ended": found.ended,
        "entries": found.counts(),
        "epochs": len(found.first_steps),
        "last_step": found.last_step,
        "batch_losses": _series(found.batch_losses),
        "series": {name: _series(one) for name, one in found.series.items()},
        "series_left_out": found.series_left_out,
        "checkpoints": found.checkpoints[-MAX_CHECKPOINTS:],
        "checkpoint_count": len(found.checkpoints),
        "samples": found.coverage.samples,
        "coverage": [{name: getattr(one, name) for name in one.__slots__} for one in found.coverage.by_role],
        "uses": {word: count for word, count in found.uses.items() if count},
        "superseded": {word: count for word, count in found.superseded.items() if count},
        "superseded_batches": found.superseded_batches,
        "batches": {word: count for word, count in found.batches.items() if count},
        "neighbours": found.neighbours,
        "datasets": found.datasets[:MAX_NAMED],
        "gaps": named.get("gap", []),
        "resumes": named.get("resume", []),
        "seals": named.get("seal", []),
        "keys": named.get("key", []),
        "erasures": named.get("erasure", []),
        "ranks": found.ranks,
        "artifact_bytes": found.artifact_bytes,
    }


def _series(one: Series) -> dict[str, Any]:
    """The points that are drawn of it, and how many there are."""
    chosen = drawn(one)
    points = [list(pair) for pair in zip(one.steps[chosen].tolist(), one.values[chosen].tolist(), strict=True)]
    last = one.values[-1] if len(one.values) else None
    return {"points": len(one.steps), "undone": one.undone, "last": last, "drawn": points}


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    """The `run` entry: settings one by one, each bounded."""
    said = {"git_commit": None, "git_dirty": None, "config_artifact": None}
    said |= {name: value for name, value in run.items() if name not in ("kind", "seq", "config", "versions")}
    settings: list[list[str]] = []
    _flatten("", run.get("config", {}), settings)
    return {**said, "settings": settings, "versions": dict(sorted(run.get("versions", {}).items()))}


def _flatten(name: str, value: Any, into: list[list[str]]) -> None:
    """Nested settings as lines of name and value."""
    if isinstance(value, Mapping) and value:
        for key in sorted(value):
            _flatten(f"{name}.{key}" if name else str(key), value[key], into)
    elif name:
        shown = value.hex() if isinstance(value, bytes) else str(value)
        more = f" … ({len(shown):,} characters)" if len(shown) > MAX_SETTING else ""
        into.append([name[:MAX_SETTING], shown[:MAX_SETTING] + more])


PAGES = (Page("/run/{name}", show, nav="Run", needs_trace=False),)
