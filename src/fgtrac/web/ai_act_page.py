"""The draft of the EU AI Act's summary of training content as HTML, for a report or a page of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fgtrac.drawing.html import Html, escape, table


def ai_act_html(summary: Mapping[str, Any]) -> Html:
    """The summary (`fgtrac.web.ai_act`), field by field: what the log says, and what is left to the provider."""
    about, log = summary["about"], summary["log"]
    law, form = about["regulation"], about["template"]
    amended = f"{law['amended']}; this was looked up on {about['looked_up']}"
    dates = "; ".join(f"{one['date']}: {one['what']}" for one in about["dates"])
    return Html(
        f"<p><strong>{escape(summary['caution'])}</strong></p>"
        f"<p>{escape(law['provision'])} of {escape(law['name'])} ({escape(amended)}), after the "
        f"{escape(form['name'])} by the {escape(form['by'])}, published {escape(form['published'])} "
        f"({escape(form['communication'])}). "
        f'{escape(dates)}. Sources: <span class="mono">{escape(law["source"])}</span>, '
        f'<span class="mono">{escape(form["source"])}</span></p>'
        f"<p>Counted from {log['entries']:,} entries; verifying them gave: {escape(log['verdict'])}. Later entries "
        f"that are not counted: {log['entries_not_covered']:,}.</p>"
        + "".join(f"<p>{escape(note)}</p>" for note in summary["notes"])
        + _totals(summary["totals"])
        + "".join(_section(section, summary["data_sets"]) for section in summary["sections"])
    )


def _totals(totals: Mapping[str, int]) -> Html:
    rows = [(name.replace("_", " "), value) for name, value in totals.items()]
    return table(["of the whole log", "number"], rows, caption="Totals")


def _section(section: Mapping[str, Any], data_sets: list[dict[str, Any]]) -> str:
    said = f"<p>{escape(section['log'])}</p>" if section["log"] else ""
    listed = _data_sets(data_sets) if section["log"] else ""
    parts = "".join(_part(part) for part in section["parts"])
    return f"<h3>{_titled(section, '. ')}</h3>{said}{listed}{parts}"


def _part(part: Mapping[str, Any]) -> str:
    rows = [
        (f"{one['id']} {one['title']}".strip(), escape(one["log"]) or None, Html(f"<em>{escape(one['open'])}</em>"))
        for one in part["fields"]
    ]
    return f"<h4>{_titled(part, ' ')}</h4>" + table(["field of the template", "what the log says", "all else"], rows)


def _titled(one: Mapping[str, Any], between: str) -> str:
    """A number and a title, where it has a number."""
    return escape(one["number"] + between + one["title"] if one["number"] else one["title"])


def _data_sets(rows: list[dict[str, Any]]) -> Html:
    """A table of what differs from zero; the provider's columns in any case."""
    rare = {
        name
        for name in ("samples_only_neighbours", "samples_used_through_others", "samples_perhaps_used",
                     "superseded_uses", "neighbour_uses", "uses_in_doubt")
        if not any(row[name] for row in rows)
    }  # fmt: skip
    names = [name for name in (rows[0] if rows else {}) if name not in rare]
    head = [name.replace("samples_", "").replace("_", " ") for name in names]
    cells = [[", ".join(row[n]) or None if n == "made_by" else row[n] for n in names] for row in rows]
    return table(head, cells, caption="Data sets")
