"""Axes: values to places, round numbers for ticks, and many points as few with the extremes kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgtrac.drawing.html import number

Floats = NDArray[np.float64]
Place = Callable[[float], float]

LARGEST = 1e300  # what lies beyond is drawn at this height, so that no difference of two values is infinite


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `low` to `high`, and where its ticks are. `words` are the ticks' labels."""

    low: float
    high: float
    ticks: tuple[float, ...]
    words: tuple[str, ...]

    def share(self, values: ArrayLike) -> Floats:
        """How far from `low` to `high` values (any shape) lie: 0 to 1, clipped."""
        large = max(abs(self.low), abs(self.high), 1e-300)
        low, high = self.low / large, self.high / large
        return np.clip((np.asarray(values, dtype=np.float64) / large - low) / (high - low), 0.0, 1.0)


def axis(values: ArrayLike, *, ticks: int = 5, zero: bool = False, snug: bool = False) -> Axis:
    """An axis over the finite ones of values (any shape); of whole numbers alone its ticks are whole.

    Its ends are round numbers, or with `snug` the lowest and the highest value. `zero` includes 0 (bars). Without a
    value it goes from 0 to 1; values that are all equal lie in the middle.
    """
    found = finite(values)
    whole = bool(len(found)) and bool((found == np.floor(found)).all())
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        around = max(1.0, abs(low) * 1e-9) if whole else abs(low) * 0.1
        low, high = low - around * (not zero), high + around
    step = _round_step(high / ticks - low / ticks)
    if whole:
        step = max(1.0, step)
    first, last = math.floor(low / step), math.ceil(high / step)
    places = [float(i * step) for i in range(first, last + 1)]
    if snug:
        places = [place for place in places if low <= place <= high]
    else:
        low, high = places[0], places[-1]
    return Axis(low, high, tuple(places), tuple(_tick_words(place, step) for place in places))


def finite(values: ArrayLike) -> Floats:
    """The finite ones of values, flat, none beyond LARGEST."""
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    return np.clip(flat[np.isfinite(flat)], -LARGEST, LARGEST)


def thin(x: Floats, y: Floats, low: float, high: float, columns: int) -> NDArray[np.intp]:
    """Which of n points (x ascending, y finite) are drawn: of each of so many columns the first, the last, the lowest
    and the highest, so that no extreme is lost."""
    if len(x) <= 4 * columns:
        return np.arange(len(x))
    column = np.minimum(((x - low) / max(high - low, 1e-300) * columns).astype(np.int64), columns - 1)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    ends = np.append(starts[1:], len(x)) - 1
    by_height = np.lexsort((y, column))  # columns stay where they are: the lowest of each is first, the highest last
    return np.unique(np.concatenate([starts, ends, by_height[starts], by_height[ends]]))


def spread(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Places as near as may be to those wanted (n), in their order, each `apart` from the next and between low and
    high as far as there is room."""
    order = np.argsort(wanted, kind="stable").tolist()
    out = [0.0] * len(wanted)
    at = low - apart
    for i in order:
        at = max(wanted[i], at + apart)
        out[i] = at
    room = high
    for i in reversed(order):
        out[i] = min(out[i], room)
        room = out[i] - apart
    return out


def _round_step(about: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `about`."""
    if about < 1e-300:
        return 1e-300
    power = math.floor(math.log10(about))
    unit = 10.0**power
    for factor in (1.0, 2.0, 5.0):
        if about <= factor * unit * (1 + 1e-9):
            return factor * unit
    return 10.0 ** (power + 1)


def _tick_words(place: float, step: float) -> str:
    if place == 0:
        return "0"
    large = max(abs(place), step)
    if large >= 1e6 or large < 1e-4:
        for size, letter in ((1e9, "G"), (1e6, "M")):
            if size <= large < size * 1e3 and step >= size / 10:
                return f"{place / size:g}{letter}"
        return f"{place:.3g}"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{place:,.{min(decimals, 8)}f}" if decimals else number(round(place))
