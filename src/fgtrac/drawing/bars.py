"""Bars: named ones that lie, ordered ones that stand, with a sign, and stacked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fgtrac.drawing.canvas import LETTER, LINE, WIDTH, Canvas, colour
from fgtrac.drawing.html import Html, number, short
from fgtrac.drawing.scale import LARGEST, axis

MOST_LYING, MOST_STANDING = 30, 240
NAME = 34  # letters of a bar's name

Item = tuple[str, float]
Part = tuple[str, Sequence[float], str]  # a name, a value for each bar, the classes of its colour


def bars(items: Sequence[Item], *, title: str, x: str = "") -> Html:
    """Named bars from left to right, each with its value: parts of a whole, shares. Of more than 30 the first are
    drawn, and a line says how many are not: sort them by what matters."""
    return _lying([name for name, _ in items], [("", [v for _, v in items], colour(0))], title, x)


def columns(items: Sequence[Item], *, title: str, x: str = "", y: str = "") -> Html:
    """Bars that stand in an order: uses by epoch, a distribution. Of more than 240 the largest of each run of
    neighbours is drawn, and a line says so."""
    return _standing([name for name, _ in items], [("", [v for _, v in items], colour(0))], title, x, y)


def signed_bars(
    items: Sequence[Item],
    *,
    title: str,
    x: str = "",
    y: str = "",
    above: str = "lowered the loss",
    below: str = "raised the loss",
    lying: bool = False,
) -> Html:
    """Bars above and below zero, in two colours that a legend names: a contribution trace over checkpoints. With
    `lying` they are named bars, as of `bars`. Of many as of `columns` or `bars`."""
    names = [name for name, _ in items]
    high = [v if v > 0 or math.isnan(v) else 0.0 for _, v in items]
    low = [v if v < 0 else 0.0 for _, v in items]
    parts: list[Part] = [(above, high, colour(0)), (below, low, colour(1))]
    return _lying(names, parts, title, x) if lying else _standing(names, parts, title, x, y)


def stacked(
    items: Sequence[tuple[str, Mapping[str, float]]],
    *,
    title: str,
    x: str = "",
    y: str = "",
    lying: bool = False,
) -> Html:
    """Bars of several parts, each in a colour that a legend names: uses by epoch and role. A part that a bar lacks is
    0. With `lying` they are named bars."""
    words = list(dict.fromkeys(word for _, values in items for word in values))
    parts: list[Part] = [
        (word, [values.get(word, 0.0) for _, values in items], colour(i)) for i, word in enumerate(words)
    ]
    names = [name for name, _ in items]
    return _lying(names, parts, title, x) if lying else _standing(names, parts, title, x, y)


def _lying(names: Sequence[str], parts: Sequence[Part], title: str, x: str) -> Html:
    shown = min(len(names), MOST_LYING)
    top = 32.0
    height = top + 22 * max(1, shown) + LINE * ((2.6 if x else 1.6) + (len(names) > shown))
    canvas = Canvas(title, height, top=top, bottom=top + 22 * max(1, shown))
    ends = [_sums(parts, i) for i in range(shown)]
    said = [_value_words(parts, i) for i in range(shown)]
    canvas.left += max((len(short(name, NAME)) for name in names[:shown]), default=0) * LETTER + 8
    canvas.right -= max(map(len, said), default=0) * LETTER + 6
    level = axis(np.asarray(ends).reshape(-1), zero=True)
    for tick in level.ticks:
        canvas.line(canvas.x(level, tick), canvas.top, canvas.x(level, tick), canvas.bottom, "fg-grid")
    canvas.level_axis(level, x)
    for i, name in enumerate(names[:shown]):
        y = canvas.top + 22 * i
        canvas.text(canvas.left - 8, y + 15, short(name, NAME), "fg-end")
        for start, stop, part in _pieces(parts, i):
            canvas.box(canvas.x(level, start), y + 3, canvas.x(level, stop), y + 19, part[2], _told(name, part, i))
        canvas.text(canvas.x(level, max(ends[i])) + 5, y + 15, said[i], "fg-soft")
    zero = canvas.x(level, 0)
    canvas.line(zero, canvas.top, zero, canvas.bottom, "fg-axis")
    if len(names) > shown:
        canvas.text(canvas.left, height - 5, f"and {len(names) - shown:,} more, not drawn", "fg-soft")
    return _finish(canvas, names, parts, shown)


def _standing(names: Sequence[str], parts: Sequence[Part], title: str, x: str, y: str) -> Html:
    every = max(1, -(-len(names) // MOST_STANDING))
    chosen = [_largest(parts, start, min(len(names), start + every)) for start in range(0, len(names), every)]
    height = 240.0 + LINE * (every > 1)
    canvas = Canvas(title, height, top=32 + LINE * bool(y), bottom=240 - LINE * (2.6 if x else 1.6))
    upright = axis(np.asarray([_sums(parts, i) for i in chosen]).reshape(-1), zero=True)
    canvas.upright_axis(upright, y)
    width = (canvas.right - canvas.left) / max(1, len(chosen))
    gap = min(width * 0.18, 6)
    labels = [short(names[i], NAME) for i in chosen]
    stride = max(1, math.ceil((max(map(len, labels), default=0) + 1) * LETTER / width))  # so that no two touch
    for place, i in enumerate(chosen):
        left = canvas.left + place * width
        for start, stop, part in _pieces(parts, i):
            top, bottom = canvas.y(upright, stop), canvas.y(upright, start)
            canvas.box(left + gap, top, left + max(gap + 1, width - gap), bottom, part[2], _told(names[i], part, i))
        if place % stride == 0:
            canvas.text(left + width / 2, canvas.bottom + LINE + 2, labels[place], "fg-middle fg-soft")
    canvas.line(canvas.left, canvas.y(upright, 0), canvas.right, canvas.y(upright, 0), "fg-axis")
    if x:
        canvas.text((canvas.left + canvas.right) / 2, canvas.bottom + 2 * LINE + 2, x, "fg-middle fg-soft")
    if every > 1:
        words = f"of {len(names):,} the largest of each {every:,} neighbours is drawn"
        canvas.text(canvas.left, height - 4, words, "fg-soft")
    return _finish(canvas, names, parts, len(chosen))


def _finish(canvas: Canvas, names: Sequence[str], parts: Sequence[Part], shown: int) -> Html:
    """The legend of several parts, and the bars in words."""
    if len(parts) > 1:
        canvas.legend([(name, kind) for name, _, kind in parts])
    if not names:
        canvas.text(WIDTH / 2, (canvas.top + canvas.bottom) / 2, "no values", "fg-middle")
    values = [value for _, column, _ in parts for value in column]
    lost = sum(not math.isfinite(value) for value in values)
    said = "; ".join(f"{short(name, 60)} {_value_words(parts, i)}" for i, name in enumerate(names[:12]))
    more = f"; and {len(names) - 12:,} more" if len(names) > 12 else ""
    drawn = f"{shown:,} of {len(names):,} bars are drawn." if shown < len(names) else ""
    return canvas.done(
        [f"{said}{more}." if said else "No values.", drawn, f"Values that are not finite: {lost:,}." if lost else ""]
    )


def _known(value: float) -> float:
    """The value as it is drawn: 0 for one that is not finite."""
    return max(-LARGEST, min(LARGEST, float(value))) if math.isfinite(value) else 0.0


def _sums(parts: Sequence[Part], i: int) -> tuple[float, float]:
    """How far the bar goes below and above zero."""
    values = [_known(column[i]) for _, column, _ in parts]
    return max(-LARGEST, sum(v for v in values if v < 0)), min(LARGEST, sum(v for v in values if v > 0))


def _pieces(parts: Sequence[Part], i: int) -> list[tuple[float, float, Part]]:
    """The parts of one bar that are drawn, each with where it begins and ends."""
    out, low, high = [], 0.0, 0.0
    for part in parts:
        value = _known(part[1][i])
        if value > 0:
            out.append((high, high + value, part))
            high += value
        elif value < 0:
            out.append((low, low + value, part))
            low += value
    return out


def _largest(parts: Sequence[Part], start: int, stop: int) -> int:
    """Which bar of a run goes farthest from zero."""
    return max(range(start, stop), key=lambda i: max(map(abs, _sums(parts, i))))


def _value_words(parts: Sequence[Part], i: int) -> str:
    """The bar's value, of several parts their sum, or what is wrong with it."""
    values = [column[i] for _, column, _ in parts]
    wrong = [value for value in values if not math.isfinite(value)]
    return number(wrong[0] if wrong else sum(values))


def _told(name: str, part: Part, i: int) -> str:
    return f"{short(name, 200)}: {number(part[1][i])}" + (f" {part[0]}" if part[0] else "")
