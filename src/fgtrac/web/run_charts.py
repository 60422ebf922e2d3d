"""The charts of a run: losses and other values over steps, with the states that were kept and the restarts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fgtrac.drawing import charts
from fgtrac.drawing.scale import thin
from fgtrac.query.overview import Overview, Series

TRAIN_LOSS = "samples' losses, mean of each batch"  # where losses of single samples were recorded
VALIDATION_LOSS = "validation loss of the states"  # as their entries say
COLUMNS = 180  # places along the steps, of each of which at most four points are kept
MAX_MARKS = 40
MAX_CHARTS = 6  # beside that of the losses


def drawn(one: Series) -> NDArray[np.intp]:
    """Which points of a series are given and drawn: its extremes everywhere, and all of them where they are few."""
    there = np.flatnonzero(np.isfinite(one.values))
    if len(there) < len(one.values) and len(one.values) <= 4 * COLUMNS:
        return np.arange(len(one.values))
    x, y = one.steps[there].astype(np.float64), one.values[there]
    order = np.argsort(x, kind="stable")
    x, y, there = x[order], y[order], there[order]
    return there[thin(x, y, float(x[0]), float(x[-1]), COLUMNS)] if len(there) else there


def loss_charts(found: Overview) -> Mapping[str, str]:
    """`losses` has the batches' losses, all series that are called a loss, and the states' validation losses;
    `others` each further series by itself, `states` what became of the model states."""
    kept = [c for c in found.checkpoints if c["standing"] == "kept"]
    marks = [charts.Mark(c["step"], "kept state") for c in kept[-MAX_MARKS:]]
    marks += [charts.Mark(r["step"], "resumed from here") for r in found.named.get("resume", [])[-MAX_MARKS:]]
    others = [(name, one) for name, one in found.series.items() if not _is_loss(name)]
    lines = _losses(found)
    pictures: dict[str, str] = {}
    if lines:
        title = (
            "Losses over steps" if len(lines) > 1 else f"{lines[0].name} over steps"
        )  # one line has no name beside it
        pictures["losses"] = charts.lines(lines, title=title, y="loss", marks=marks)
    drawings = [charts.lines([_line(name, one)], title=name, height=180) for name, one in others[:MAX_CHARTS]]
    if drawings:
        pictures["others"] = "".join(drawings)
    if found.checkpoints:
        pictures["states"] = _states(found)
    return pictures


def compared_losses(runs: Mapping[str, Overview]) -> str:
    """The losses of several runs in one chart; nothing where none has any."""
    lines = []
    for name, found in runs.items():
        lines += [charts.Series(f"{name}: {line.name}", line.x, line.y) for line in _losses(found)]
    return charts.lines(lines, title="Losses over steps", y="loss") if lines else ""


def _is_loss(name: str) -> bool:
    return "loss" in name.lower()


def _losses(found: Overview) -> list[charts.Series]:
    """What is a loss, each as a line. A value that was logged under the name of one of the others says so."""
    lines = [_line(TRAIN_LOSS, found.batch_losses)] if len(found.batch_losses.steps) else []
    for name, one in found.series.items():
        if _is_loss(name):
            lines.append(_line(f"{name} (run.log)" if name in (TRAIN_LOSS, VALIDATION_LOSS) else name, one))
    line = _validation(found)
    return [*lines, line] if line else lines


def _line(name: str, one: Series) -> charts.Series:
    chosen = drawn(one)
    return charts.Series(name, one.steps[chosen].astype(np.float64), one.values[chosen])


def _validation(found: Overview) -> charts.Series | None:
    """The validation losses of the states that no restart went back behind."""
    said = [(c["step"], c["val_loss"]) for c in found.checkpoints if c["standing"] != "superseded"]
    points = [(step, loss) for step, loss in said if loss is not None]
    if not points:
        return None
    return charts.Series(VALIDATION_LOSS, [float(step) for step, _ in points], [loss for _, loss in points])


def _states(found: Overview) -> str:
    """A lane for each thing that became of states, and one for restarts."""
    lanes = []
    for standing in ("kept", "dropped", "not kept", "superseded"):
        steps = [float(c["step"]) for c in found.checkpoints if c["standing"] == standing]
        if steps:
            lanes.append(charts.Lane(standing, at=steps, each=f"state, {standing}"))
    resumes = [charts.Event(float(r["step"]), "resumed from here") for r in found.named.get("resume", [])]
    if resumes:
        lanes.append(charts.Lane("resumed", resumes))
    return charts.timeline(lanes, title="Model states, and what became of them")
