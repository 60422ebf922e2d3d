"""Explanations, suspects and duplicates as a notebook shows them, in the words and numbers of their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fgtrac.drawing.charts import Series, lines, signed_bars
from fgtrac.drawing.html import Html, table
from fgtrac.drawing.notebook import shown

if TYPE_CHECKING:
    from fgtrac.api.explanation import Explanation, Scored, Toward
    from fgtrac.api.suspects import Duplicates, SuspectList

DRAWN = 4  # proponents, and as many opponents, whose traces are drawn


def explanation_html(explanation: Explanation) -> str:
    """Toward each target: who lowered its loss and who raised it, and how that came about over the checkpoints."""
    pieces: list[str] = []
    for one in explanation.toward:
        pieces += [one.sentence, *_toward(one, explanation.steps, bool(explanation.steps_of_traces))]
        pieces += [line for line in (one.weighed, one.free) if line]
    return shown(*pieces, explanation.basis)


def _toward(one: Toward, steps: Sequence[int], is_ensemble: bool) -> Iterator[Html]:
    for title, samples in (("proponents", one.proponents), ("opponents", one.opponents)):
        if samples:
            yield table(
                ("sample", "role", "score"), [(s.words, s.role, _signed(s.score)) for s in samples], caption=title
            )
    traced = [s for s in (*one.proponents[:DRAWN], *one.opponents[:DRAWN]) if len(s.trace) == len(steps) > 1]
    if traced and not is_ensemble:
        yield lines(
            [_over(s, steps) for s in traced], title=f"contributions toward {one.target}, summed over checkpoints"
        )
    if one.shares:
        items = [(share.group, share.sum) for share in one.shares]
        yield signed_bars(items, title="shares", lying=True)


def _over(sample: Scored, steps: Sequence[int]) -> Series:
    total, sums = 0.0, []
    for share in sample.trace:
        total += share
        sums.append(total)
    return Series(sample.words, steps, sums)


def suspects_html(found: SuspectList) -> str:
    """The list, with both measures and both ranks."""
    head = ("sample", "class", "self-influence", "rank", "mean loss", "rank")
    rows = [
        (
            s.row.words,
            s.row.label,
            f"{s.self_influence:.4g}",
            s.rank_by_self_influence,
            f"{s.mean_loss:.4g}",
            s.rank_by_mean_loss,
        )
        for s in found.suspects
    ]
    return shown(table(head, rows), found.basis)


def duplicates_html(found: Duplicates) -> str:
    """The pairs."""
    contents = {True: "equal contents", False: "other contents", None: None}
    rows = [(p.first.words, p.second.words, f"{p.gradients:.4f}", contents[p.equal_content]) for p in found.pairs]
    return shown(table(("sample", "and", "cosine", "contents"), rows), found.basis)


def _signed(score: float) -> str:
    return f"{score:+.4g}"
