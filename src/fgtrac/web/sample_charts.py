"""A sample's history as charts and the tables under them: its life in the log, uses, contributions, modality weights.

Each function takes the plain data of the page, so that chart, table and JSON cannot say different things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgtrac.drawing.charts import Event, Lane, signed_bars, stacked, timeline
from fgtrac.drawing.html import Html, table
from fgtrac.web.asked import address

LANES = {  # kinds of events -> the lane that they stand in, in the order of a life
    "registered": "registered",
    "derived": "made by a stage",
    "transformed": "stages",
    "role": "roles",
    "used": "updates",
    "neighbour": "as a neighbour",
    "delivered": "not applied",
    "attention": "modality weights",
    "contribution": "contributions",
    "prediction": "predictions",
    "erased": "erased",
}
NAMED = 60  # events of a lane that are drawn one by one, with their words
CHARTS = 4  # targets whose contributions are drawn


def life(events: Sequence[Mapping[str, Any]], name: str) -> Html:
    """Every event of a sample at its entry's place in the log, in a lane for each kind."""
    lanes = []
    for kind, words in LANES.items():
        mine = [event for event in events if event["kind"] == kind]
        if len(mine) > NAMED:
            lanes.append(Lane(words, at=[event["entry"] for event in mine], each=words))
        elif mine:
            places = {event["entry"]: event["words"] for event in mine}
            lanes.append(
                Lane(
                    words, [Event(n, said, href=address("run", name, "log", "entry", n)) for n, said in places.items()]
                )
            )
    return timeline(lanes, title="Its life, from source to prediction", x="entry of the log")


def uses(epochs: Sequence[Mapping[str, Any]]) -> tuple[Html, Html]:
    """Updates by epoch, as a seed and by hop, and the same as a table."""
    hops = sorted({hop for row in epochs for hop in row["neighbour"]}, key=int)
    words = ["as a seed" if hops else "used", *(f"neighbour, hop {hop}" for hop in hops)]
    rows = [(_epoch(row["epoch"]), [row["seed"], *(row["neighbour"].get(hop, 0) for hop in hops)]) for row in epochs]
    drawn = [(epoch, dict(zip(words, counts, strict=True))) for epoch, counts in rows]
    chart = stacked(drawn, title="Updates that it took part in, by epoch", x="epoch", y="updates")
    listed = table(["Epoch", *words], [[epoch, *counts] for epoch, counts in rows[:500]], more=max(0, len(rows) - 500))
    return chart, listed


def contributions(groups: Sequence[Mapping[str, Any]]) -> Html:
    """What it did to each target's loss at each kept checkpoint, a chart for each of the first few targets."""
    return Html(
        "".join(
            signed_bars(
                [(str(step), score) for step, score in group["scores"]],
                title=f"Toward {group['target']} ({group['method']}): {group['sum']:+.4g} in all",
                x="kept checkpoint, by step",
                y="contribution",
            )
            for group in groups[:CHARTS]
        )
    )


def contribution_table(groups: Sequence[Mapping[str, Any]]) -> Html:
    """Each score of each target."""
    rows = [[group["target"], group["method"], step, score] for group in groups for step, score in group["scores"]]
    return table(["Target", "Method", "Checkpoint, by step", "Contribution"], rows[:500], more=max(0, len(rows) - 500))


def attention(weights: Sequence[Mapping[str, Any]]) -> tuple[Html, Html]:
    """The weight of each modality at each kept checkpoint."""
    words = list(dict.fromkeys(word for row in weights for word in row["weights"]))
    chart = stacked(
        [(str(row["step"]), row["weights"]) for row in weights], title="Modality weights", x="kept checkpoint, by step"
    )
    rows = [[str(row["step"]), *(row["weights"].get(word) for word in words)] for row in weights]
    return chart, table(["Checkpoint, by step", *words], rows[:500], more=max(0, len(rows) - 500))


def _epoch(number: int | None) -> str:
    return "unknown" if number is None else str(number)
