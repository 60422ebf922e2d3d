"""A history as a notebook shows it: its text as it is, and above it what is easier seen than read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fgtrac.drawing.charts import Series, lines, signed_bars, stacked
from fgtrac.drawing.html import Html
from fgtrac.drawing.notebook import shown, words
from fgtrac.query.history_text import is_graph
from fgtrac.query.tally import UNKNOWN

if TYPE_CHECKING:
    from fgtrac.query.history import History

TARGETS = 4  # whose contributions are drawn, those of the largest sums


def history_html(history: History) -> str:
    """Uses by epoch, contributions and modality weights over checkpoints, where there are any, and the text."""
    return shown(*_charts(history), words(history.text()))


def _charts(history: History) -> Iterator[Html]:
    tally = history.tally
    if len(tally.epochs) > 1:
        seed = "as a seed" if is_graph(tally.hops, history.draws) else "used"
        names = [seed, *(f"hop {hop}" for hop in tally.hops)]
        items = [
            ("?" if epoch == UNKNOWN else str(epoch), dict(zip(names, map(float, row), strict=True)))
            for epoch, row in zip(tally.epochs, tally.counts.tolist(), strict=True)
        ]
        yield stacked(items, title="parts in updates, by epoch", x="epoch")
    scores = _scores(history)
    largest = sorted(scores, key=lambda key: (-abs(sum(score for _, score in scores[key])), key))[:TARGETS]
    for target, method in largest:
        shares = [(str(step), score) for step, score in scores[target, method]]
        yield signed_bars(shares, title=f"contribution toward {target}, by {method}", x="step")
    weights = history.attention
    if len(weights) > 1:
        names = list(dict.fromkeys(name for _, each in weights for name in each))
        steps = [step for step, _ in weights]
        series = [Series(name, steps, [each.get(name, float("nan")) for _, each in weights]) for name in names]
        yield lines(series, title="modality weights at kept checkpoints")


def _scores(history: History) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(target, method) -> step and score at each checkpoint that is kept, in the order of steps: those of the text."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for event in history.events:
        said = event.details
        stands = event.superseded_by is None and said.get("standing") == "kept"
        if event.kind == "contribution" and stands and "score" in said:
            found[said["target"], said["method"]].append((event.step or 0, float(said["score"])))
    return {key: sorted(each) for key, each in found.items()}
