"""Charts as inline SVG: lines over steps, and a timeline; bars of all kinds come from `bars`.

Each is a pure function of its arguments: the same call gives the same bytes. A value that is not finite is not drawn,
and the description says how many there were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from fgtrac.drawing.bars import bars, columns, signed_bars, stacked
from fgtrac.drawing.canvas import LETTER, LINE, Canvas, colour, named
from fgtrac.drawing.html import Html, escape, inner, number, short
from fgtrac.drawing.scale import LARGEST, Axis, Floats, axis, spread, thin

__all__ = ["Event", "Lane", "Mark", "Series", "bars", "columns", "lines", "signed_bars", "stacked", "timeline"]

MOST_SERIES = 24
WHOLE_MARKS = 40  # up to so many stand as high as the chart
NAME = 22  # letters of a series' name that stand beside its line
PLACES = 640  # of a lane, from left to right


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A named line through points x (n,), y (n,), in any order of x."""

    name: str
    x: ArrayLike
    y: ArrayLike


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on the level axis with words: a kept checkpoint, a restart."""

    x: float
    words: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something at a place (or from `at` to `until`) of a lane. `href` leads to a page of the site."""

    at: float
    words: str
    until: float | None = None
    href: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """A named line of a timeline. `at` (n,) are places of events of one kind that nobody names one by one, `each` what
    one of them is called."""

    name: str
    events: Sequence[Event] = ()
    at: ArrayLike = ()
    each: str = "event"


def lines(
    series: Sequence[Series],
    *,
    title: str,
    x: str = "step",
    y: str = "",
    marks: Sequence[Mark] = (),
    height: float = 260,
) -> Html:
    """Lines with their names beside them. Of many points those are drawn that hold the extremes; a gap in a line is a
    value that is not finite. `marks` are upright lines. At most 24 series are drawn, and the description says so.

    ValueError for x and y of different lengths.
    """
    shown = [_points(one) for one in series[:MOST_SERIES]]
    canvas = Canvas(title, height, top=32 + LINE * bool(y), bottom=height - LINE * (2.6 if x else 1.6))
    level = axis(np.concatenate([*(p[0] for p in shown), [m.x for m in marks]]), ticks=8, snug=True)
    upright = axis(np.concatenate([np.empty(0), *(p[1] for p in shown)]))
    named_beside = len(shown) > 1
    if named_beside:
        canvas.right -= max(len(short(one.name, NAME)) for one in series[:MOST_SERIES]) * LETTER + 14
    canvas.upright_axis(upright, y)
    canvas.level_axis(level, x)
    _draw_marks(canvas, level, marks, x)
    for i, (one, points) in enumerate(zip(series, shown, strict=False)):
        _draw_line(canvas, level, upright, points, colour(i), one.name)
    if named_beside:
        _names_beside(canvas, upright, [(one.name, p[1]) for one, p in zip(series, shown, strict=False)])
    if not any(np.isfinite(p[1]).any() for p in shown):
        canvas.text((canvas.left + canvas.right) / 2, (canvas.top + canvas.bottom) / 2, "no values", "fg-middle")
    says = [_told(one.name, *points, x) for one, points in zip(series, shown, strict=False)]
    if len(series) > len(shown):
        says.append(f"{len(series) - len(shown)} more series are not drawn.")
    if marks:
        says.append(f"{len(marks):,} marks: " + ", ".join(short(m.words, 60) for m in marks[:8]) + ".")
    return canvas.done(says)


def timeline(lanes: Sequence[Lane], *, title: str, x: str = "step") -> Html:
    """A lane for each kind of event, one below the other; events at one place are drawn as one, which says how many.

    ValueError for a link that leads out of the site.
    """
    height = 32 + 26 * len(lanes) + LINE * 2.6
    canvas = Canvas(title, height, bottom=height - LINE * 2.6)
    canvas.left += max((len(short(lane.name, NAME)) for lane in lanes), default=0) * LETTER + 8
    places = [e.at for lane in lanes for e in lane.events]
    places += [e.until for lane in lanes for e in lane.events if e.until is not None]
    gathered = [np.asarray(lane.at, dtype=np.float64).reshape(-1) for lane in lanes]
    level = axis(np.concatenate([np.asarray(places, dtype=np.float64), *gathered]), ticks=8, snug=True)
    canvas.level_axis(level, x)
    says = []
    for i, (lane, many) in enumerate(zip(lanes, gathered, strict=True)):
        middle = canvas.top + 26 * i + 11
        canvas.text(canvas.left - 8, middle + 4, short(lane.name, NAME), "fg-end")
        canvas.line(canvas.left, middle, canvas.right, middle, "fg-grid")
        _draw_many(canvas, level, many, middle, colour(i), lane.each, x)
        for event in lane.events:
            _draw_event(canvas, level, event, middle, colour(i), x)
        says.append(f"{short(lane.name, 80)}: {len(lane.events) + len(many):,}.")
    if not lanes:
        canvas.text((canvas.left + canvas.right) / 2, 40, "no events", "fg-middle")
    return canvas.done(says)


def _draw_marks(canvas: Canvas, level: Axis, marks: Sequence[Mark], over: str) -> None:
    """Upright lines; of many short ones, and of those at one place the first."""
    top = canvas.top if len(marks) <= WHOLE_MARKS else canvas.bottom - 8
    places: dict[int, Mark] = {}
    for mark in marks:
        if np.isfinite(mark.x):
            places.setdefault(round(canvas.x(level, mark.x)), mark)
    for at, mark in places.items():
        canvas.parts.append(f"<g>{named(f'{mark.words} ({over} {number(mark.x)})')}")
        canvas.line(at, top, at, canvas.bottom, "fg-mark")
        canvas.parts.append("</g>")


def _points(one: Series) -> tuple[Floats, Floats]:
    """Its points in the order of x, those at no finite x left out."""
    x, y = (np.asarray(v, dtype=np.float64).reshape(-1) for v in (one.x, one.y))
    if len(x) != len(y):
        raise ValueError(f"series {one.name!r:.60} has {len(x)} values of x and {len(y)} of y; give one y for each x")
    there = np.isfinite(x)
    x, y = np.clip(x[there], -LARGEST, LARGEST), y[there]
    y = np.where(np.isfinite(y), np.clip(y, -LARGEST, LARGEST), np.nan)
    order = np.argsort(x, kind="stable")
    return x[order], y[order]


def _draw_line(canvas: Canvas, level: Axis, upright: Axis, points: tuple[Floats, Floats], kind: str, name: str) -> None:
    """One line, in as many pieces as values that are not finite cut it into; a piece of one point is a dot."""
    columns_ = int(canvas.right - canvas.left)
    ends = np.flatnonzero(np.isnan(points[1]))
    pieces = []
    for start, stop in pairwise([-1, *ends.tolist(), len(points[0])]):
        x, y = points[0][start + 1 : stop], points[1][start + 1 : stop]
        if len(x) == 1:
            said = f"{name}: {number(float(y[0]))} at {number(float(x[0]))}"
            canvas.dot(canvas.x(level, x[0]), canvas.y(upright, y[0]), kind, said)
        elif len(x):
            kept = thin(x, y, level.low, level.high, columns_)
            across = canvas.left + level.share(x[kept]) * (canvas.right - canvas.left)
            up = canvas.bottom - upright.share(y[kept]) * (canvas.bottom - canvas.top)
            pieces.append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(across.tolist(), up.tolist(), strict=True)))
    if pieces:
        canvas.parts.append(f'<path class="fg-line {kind}" d="{"".join(pieces)}">{named(name)}</path>')


def _names_beside(canvas: Canvas, upright: Axis, ends: Sequence[tuple[str, Floats]]) -> None:
    """Each series' name at the height of its last value, moved apart where they would touch."""
    last = [float(v[np.isfinite(v)][-1]) if np.isfinite(v).any() else upright.low for _, v in ends]
    apart = min(LINE, (canvas.bottom - canvas.top) / max(1, len(ends) - 1))
    places = spread([canvas.y(upright, value) for value in last], apart, canvas.top, canvas.bottom)
    for i, ((name, _), y) in enumerate(zip(ends, places, strict=True)):
        canvas.dot(canvas.right + 8, y, colour(i), name)
        canvas.text(canvas.right + 14, y + 4, short(name, NAME))


def _told(name: str, x: Floats, y: Floats, over: str) -> str:
    """A line in words: its ends and its extremes."""
    there = np.isfinite(y)
    lost = int((~there).sum())
    more = f" Values that are not finite: {lost:,}." if lost else ""
    if not there.any():
        return f"{short(name, 80)}: no values.{more}"
    known, places = y[there], x[there]
    low, high = number(float(known.min())), number(float(known.max()))
    span = f"{over} {number(float(places[0]))} to {number(float(places[-1]))}"
    ends = f"from {number(float(known[0]))} to {number(float(known[-1]))}"
    return f"{short(name, 80)}: {len(known):,} values at {span}, {ends}, lowest {low}, highest {high}.{more}"


def _draw_many(canvas: Canvas, level: Axis, many: Floats, y: float, kind: str, each: str, over: str) -> None:
    """Events that are counted place by place: the more there are at one, the higher it stands."""
    known = many[np.isfinite(many)]
    if not len(known):
        return
    column = np.minimum((level.share(known) * PLACES).astype(np.int64), PLACES - 1)
    counts = np.bincount(column)
    order = np.argsort(known, kind="stable")
    known, column = known[order], column[order]
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    most = int(counts.max())
    for start, stop in pairwise([*starts.tolist(), len(known)]):
        first, last, count = float(known[start]), float(known[stop - 1]), stop - start
        half = 3 + 6 * (count / most)
        middle = canvas.x(level, first)
        where = f"{over} {number(first)}" + (f" to {number(last)}" if last > first else "")
        said = f"{each}, {where}" if count == 1 else f"{count:,} times {each}, {where}"
        canvas.box(middle - 0.75, y - half, middle + 0.75, y + half, kind, said)


def _draw_event(canvas: Canvas, level: Axis, event: Event, y: float, kind: str, over: str) -> None:
    if not np.isfinite(event.at):
        return
    if event.href:
        canvas.parts.append(f'<a href="{escape(inner(event.href))}">')
    start = canvas.x(level, event.at)
    if event.until is not None and np.isfinite(event.until):
        said = f"{event.words} ({over} {number(event.at)} to {number(event.until)})"
        canvas.box(start, y - 5, canvas.x(level, event.until), y + 5, kind, said)
    else:
        canvas.dot(start, y, kind, f"{event.words} ({over} {number(event.at)})", 5)
    canvas.parts.append("</a>" if event.href else "")
