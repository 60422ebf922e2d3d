"""A sample's history in words: a line for each event, or of a long one what it comes to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fgtrac.events.one_line import one_line
from fgtrac.query.family import short
from fgtrac.query.tally import Draws, Tally

if TYPE_CHECKING:
    from fgtrac.query.history import Event, History

SHORT = 40  # events that are told line by line
SHOWN = 12  # checkpoints, or targets, that a table of a long history has
UNMEASURED = "fidelity not measured here; fgtrac score says what the log has of it"  # of contributions
COUNTED = ("used", "neighbour", "delivered", "attention", "contribution", "prediction")


def history_text(history: History, *, every_event: bool) -> str:
    """What there is to say of a sample. Up to SHORT events each has its line; of more there are tables, and lines for
    all of them only with `every_event`."""
    events, is_long = history.events, len(history.events) > SHORT
    lines = [f"sample {history.id.hex()}" + (f" ({short(history.name)})" if history.name else "")]
    if is_long and not every_event:
        lines += _lines(event for event in events if event.kind not in COUNTED)
    if is_long:
        lines += [f"  {line}" for line in _summary(history)]
    elif history.tally.hops:
        lines.append(f"  {_parts(history.tally, history.draws)}")
    if every_event or not is_long:
        lines += _lines(events)
    lines += [f"  {line}" for line in _closing(history)]
    if is_long and not every_event:
        lines.append(f"  {len(events):,} events; fgtrac history --all has a line for each")
    return "\n".join(map(one_line, lines))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(w) if n else cell.ljust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]


def times(number: int) -> str:
    """How often, in words."""
    return "once" if number == 1 else f"{number:,} times"


def counted(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def is_graph(hops: Sequence[int], draws: Draws) -> bool:
    """Whether a sample is known to be a node of a graph, whose uses are those of a seed."""
    return bool(hops or draws.each)


def taking_part(hops: Sequence[int], draws: Draws) -> list[str]:
    """The headings of a table of parts in updates: as a seed, and at each hop."""
    seed = "seed" if is_graph(hops, draws) else "used"
    return [seed, *(f"hop {hop}{draws.reach[hop].words if hop in draws.reach else ''}" for hop in hops)]


def drawn(draws: Draws) -> Iterator[str]:
    """How the neighbours came about, and how many entries were asked."""
    for draw in draws.each:
        how = f"drawn by a sampler, in {draw.hops} hops"
        if draw.graph == "whole":
            how = f"of the whole graph, read at once: hop {draw.hops} is beyond the reach of its messages"
        told = f"{draw.entries:,} of the {draws.named:,} entries"
        if draws.read < draws.named:
            told = f"{draw.entries:,} of the {draws.read:,} entries that were read, of {draws.named:,}"
        yield f"neighbours {how} ({told})"
    if unread := sum(reach.unread for reach in draws.reach.values()):
        words = f"the entries of {counted(unread, 'part')} as a neighbour were not read"
        yield f"{words}: whether messages reached a seed is unknown"


def _steps(steps: Sequence[int]) -> str:
    if len(steps) == 1:
        return f"step {steps[0]}"
    if len(steps) <= SHOWN:
        return "steps " + ", ".join(map(str, steps))
    return f"steps {', '.join(map(str, steps[: SHOWN - 1]))}, ... {steps[-1]} ({len(steps):,} of them)"


def _parts(tally: Tally, draws: Draws) -> str:
    """How often a sample took part, and as what."""
    words, of_graph = [], is_graph(tally.hops, draws)
    seed = "used as a seed" if of_graph else "used"
    for number, span, how in zip((tally.seeds, tally.neighbours), tally.steps, (seed, "a neighbour"), strict=True):
        if span is not None:
            when = f"step {span[0]}" if span[0] == span[1] else f"steps {span[0]} to {span[1]}"
            words.append(f"{how} {times(number)} ({when})")
    if of_graph and not tally.seeds:
        words.append("never a seed")
    if tally.perhaps:
        words.append(f"perhaps used {times(tally.perhaps)}, by batches that held another number than were drawn")
    if tally.delivered:
        words.append(f"delivered but not applied {times(tally.delivered)}")
    return ", ".join(words) or "no part in any update"


def _lines(events: Iterator[Event] | Sequence[Event]) -> list[str]:
    """A line an event; where one entry makes several samples of it, or it of several, one line for all."""
    lines: dict[tuple[str, int], None] = {}
    for number, event in enumerate(events):
        together = event.kind in ("transformed", "derived")
        lines[f"  entry {event.entry:>7}  {event.words}", -1 if together else number] = None
    return [line for line, _ in lines]


def _summary(history: History) -> Iterator[str]:
    tally, draws = history.tally, history.draws
    yield _parts(tally, draws)
    yield from drawn(draws)
    yield from columns(_epochs(tally, draws))
    if history.is_by_step:
        yield "each step is counted in the last epoch that had begun by it; --details reads the epochs"
    yield from _attention(history)
    yield from _contributions(history)
    yield from _predictions(history)


def _epochs(tally: Tally, draws: Draws) -> list[list[str]]:
    """The table of epochs, with its heading and its sums."""
    if not tally.epochs:
        return []
    rows = [[words, *(f"{n:,}" for n in counts)] for words, counts in tally.table()]
    sums = [f"{n:,}" for n in tally.counts.sum(axis=0).tolist()]
    return [["epoch", *taking_part(tally.hops, draws)], *rows, ["all", *sums]]


def _attention(history: History) -> Iterator[str]:
    said = history.attention
    if not said:
        if any(event.kind == "attention" and "weights" not in event.details for event in history.events):
            yield "modality weights were not read; --details reads them"
        return
    names = list(dict.fromkeys(name for _, weights in said for name in weights))
    shown = said if len(said) <= SHOWN else [said[n * (len(said) - 1) // (SHOWN - 1)] for n in range(SHOWN)]
    yield f"modality weights at {len(said)} kept checkpoints" + (f", {SHOWN} of them" if len(shown) < len(said) else "")
    rows = [[str(step), *(_weight(weights, name) for name in names)] for step, weights in shown]
    yield from columns([["step", *names], *rows])


def _weight(weights: dict[str, float], name: str) -> str:
    value = weights.get(name)
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _contributions(history: History) -> Iterator[str]:
    """A line for each target and method: what it comes to over the checkpoints that are kept."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    mine = [event for event in history.events if event.kind == "contribution" and event.superseded_by is None]
    read = [event for event in mine if "score" in event.details]
    for event in read:
        if event.details["standing"] == "kept":
            scores[event.details["target"], event.details["method"]].append(float(event.details["score"]))
    if unread := len(mine) - len(read):
        yield f"{counted(unread, 'contribution')} not read; --details reads them"
    if displaced := len(read) - sum(map(len, scores.values())):
        yield f"{counted(displaced, 'score')} at checkpoints that are not kept any more: left out of these sums"
    sums = sorted(((sum(each), len(each), key) for key, each in scores.items()), key=lambda row: (-abs(row[0]), row[2]))
    for total, number, (target, method) in sums[:SHOWN]:
        yield f"contributed {total:+.4g} toward {target}, the sum of {counted(number, 'score')} ({method})"
    if len(sums) > SHOWN:
        yield f"and to {len(sums) - SHOWN:,} more targets"


def _predictions(history: History) -> Iterator[str]:
    mine = [event for event in history.events if event.kind == "prediction" and event.superseded_by is None]
    if mine:
        last = max(mine, key=lambda event: (event.step or 0, event.entry))
        yield last.words if len(mine) == 1 else f"{times(len(mine))} predicted; the last: {last.words}"


def _closing(history: History) -> Iterator[str]:
    if history.superseded:
        yield f"{history.superseded} of its {history.uses} uses were superseded: no later model rests on them"
    if number := history.tally.superseded[1]:
        yield f"{number:,} of its {history.tally.neighbours:,} parts as a neighbour were superseded"
    if history.checkpoints and history.may_be_of_several_fits:
        yield f"model states kept behind its uses in this trace: {_steps(history.checkpoints)}"
        yield "several fits may be in the trace, and the log does not say whether they went on with the same model"
    elif history.checkpoints:
        what = "its uses are" if history.uses else "its features, as a neighbour's, are"
        yield f"{what} in the model states kept at {_steps(history.checkpoints)}"
    if history.undecided:
        steps = _steps(history.undecided)
        yield f"whether it is in those kept at {steps} only entries that were not read could tell; --details"
    yield from history.family.lines()
    if history.has_scores:
        yield f"contributions are estimates: {UNMEASURED}"
    yield f"complete up to entry {history.size - 1}, {history.rests_on}"
    if history.pending:
        yield f"not yet in the index: {history.pending} entries; run fgtrac seal"
