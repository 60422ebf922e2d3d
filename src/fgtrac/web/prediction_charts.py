"""A prediction as charts, of the plain data of its page: the outputs, the losses, and who contributed when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgtrac.drawing.charts import Mark, Series, bars, lines
from fgtrac.drawing.html import Html

OUTPUTS = 20  # the highest that are drawn
TRACED = 5  # of each side


def outputs(prediction: Mapping[str, Any]) -> Html:
    """The highest outputs of a prediction, by their place."""
    known = [(i, v) for i, v in enumerate(prediction["outputs"]) if isinstance(v, float)]
    highest = sorted(known, key=lambda pair: (-pair[1], pair[0]))[:OUTPUTS]
    title = f"Outputs at step {prediction['step']}" + (", the highest" if len(known) > OUTPUTS else "")
    return bars([(f"output {i}", v) for i, v in highest], title=title)


def losses(predictions: Sequence[Mapping[str, Any]]) -> Html | None:
    """The sample's loss at each recorded prediction, where there are several."""
    known = [(p["step"], p["loss"]) for p in predictions if isinstance(p["loss"], float) and p["step"] is not None]
    if len(known) < 2:
        return None
    steps, values = zip(*known, strict=True)
    return lines([Series("loss", steps, values)], title="Its loss at the recorded predictions", height=200)


def contribution_traces(found: Mapping[str, Any]) -> Html:
    """How much the strongest of each side contributed at each checkpoint."""
    series = [
        Series(f"{sign} {one['words']}", found["steps"], one["trace"])
        for sign, side in (("+", found["proponents"]), ("−", found["opponents"]))
        for one in side[:TRACED]
    ]
    marks = [Mark(step, "kept state") for step in found["steps"]]
    return lines(series, title="Contributions at each kept checkpoint", y="score", marks=marks, height=320)
