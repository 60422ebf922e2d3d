"""The mean loss of each update, from the `use` entries of a log, and where it jumps.

A step jumps where its mean loss lies far above the running median of its neighbours and above that of the steps just
before it, measured in median absolute deviations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fgtrac.events.codec import encode
from fgtrac.events.schema import STATUS
from fgtrac.query.log import SealedLog

NEAR = 21  # steps of the running median of the loss, centred
WINDOW = 101  # steps over which its deviations are measured
BEFORE = 11  # steps of the median just before
LEAST_STEPS = 8  # of a series in which a jump can be told from nothing
JUMP = 6.0  # deviations above both medians
MAD = 1.4826  # a normal distribution's standard deviation in median absolute deviations
_LARGEST = float(np.finfo(np.float16).max)
_USE = encode("kind") + encode("use")

Key = tuple[bytes, int, int]  # writer, loader, optimizer: whose losses are of one kind
Floats = NDArray[np.float64]
Batches = list[tuple[NDArray[Any], ...]]  # steps, epochs, entries, sums and counts of losses, an entry each


@dataclass(slots=True)
class Series:
    """The steps of one writer, loader and optimizer, ascending, with their mean losses and what is usual there."""

    steps: NDArray[np.uint64]
    epochs: NDArray[np.uint32]
    entries: NDArray[np.int64]
    losses: Floats
    usual: Floats = field(default_factory=lambda: np.empty(0))
    height: Floats = field(default_factory=lambda: np.empty(0))

    def usual_at(self, steps: NDArray[np.uint64]) -> Floats:
        """What is usual at steps of the series."""
        at: Floats = self.usual[np.searchsorted(self.steps, steps)]
        return at


def _use_entries(log: SealedLog) -> Iterator[int]:
    """The numbers of the `use` entries; `log.event` checks each when it is read."""
    for number in range(log.head.size):
        if _USE in log.peek(number) and log.event(number)["kind"] == "use":
            yield number


def gather(log: SealedLog) -> tuple[list[int], dict[Key, Batches], int, int, int]:
    """The first reading: entries with losses, each series' batches, and the counts of sample events with losses,
    without them, and with losses that are no numbers."""
    numbers: list[int] = []
    gathered: dict[Key, Batches] = {}
    events = without = bad = 0
    for number in _use_entries(log):
        event = log.event(number)
        applied = event["status"] == STATUS["applied"]
        if "losses" not in event:
            without += int(event["count"][applied].sum())
            continue
        numbers.append(number)
        owner = np.repeat(np.arange(len(applied)), event["count"])
        losses = numbers_of(event["losses"])
        known = ~np.isnan(losses)
        events += int((known & applied[owner]).sum())
        bad += int((~known & applied[owner]).sum())
        counts = np.bincount(owner[known], minlength=len(applied))
        sums = np.bincount(owner[known], weights=losses[known], minlength=len(applied))
        some = applied & (counts > 0)
        batches = gathered.setdefault(key_of(event), [])
        entry = np.full(int(some.sum()), number)
        batches.append((event["step"][some], event["epoch"][some], entry, sums[some], counts[some]))
    return numbers, {key: b for key, b in gathered.items() if any(len(c[0]) for c in b)}, events, without, bad


def key_of(event: Any) -> Key:
    """Which series a `use` entry belongs to."""
    return bytes(event["writer"]), int(event["loader"]), int(event["optimizer"])


def numbers_of(losses: NDArray[np.float16]) -> Floats:
    """Losses as float64; those too large for float16 count as its largest number."""
    return np.clip(losses.astype(np.float64), -_LARGEST, _LARGEST)


def series_of(batches: Batches) -> Series:
    """One row a step: batches of one step, and pieces of one batch, are put together."""
    step, epoch, entry, sums, counts = (np.concatenate(column) for column in zip(*batches, strict=True))
    steps, first, owner = np.unique(step, return_index=True, return_inverse=True)
    losses = np.bincount(owner, weights=sums) / np.bincount(owner, weights=counts)
    return Series(steps, epoch[first], entry[first], losses)


def heights(losses: Floats) -> tuple[Floats, Floats]:
    """For each step what is usual there (the higher of the two medians) and how many deviations above it lies."""
    n = len(losses)
    if n < LEAST_STEPS:
        return np.full(n, np.median(losses)), np.full(n, -np.inf)
    medians = _running(losses, NEAR)
    spread = MAD * _running(np.abs(losses - medians), WINDOW)
    before = np.full(n, np.inf)  # the first step has nothing to jump from
    before[1:BEFORE] = [np.median(losses[:t]) for t in range(1, min(BEFORE, n))]
    if n > BEFORE:
        before[BEFORE:] = np.median(sliding_window_view(losses[:-1], BEFORE), axis=1)
    usual = np.maximum(medians, before)
    height = (losses - usual) / np.maximum(spread, 1e-3 * np.abs(medians) + 1e-6)
    return np.where(np.isfinite(usual), usual, medians), height


def _running(values: Floats, width: int) -> Floats:
    """(n,) the median of the `width` values around each; at the ends, that of the first or last `width`."""
    n, width = len(values), min(width, len(values))
    windows = sliding_window_view(values, width)
    medians = np.concatenate([np.median(windows[i : i + 4096], axis=1) for i in range(0, len(windows), 4096)])
    at = np.clip(np.arange(n) - width // 2, 0, n - width)
    found: Floats = medians[at]
    return found


def find_jumps(series: dict[Key, Series], top: int) -> list[tuple[Key, int, int]]:
    """The highest jumps as (series, place of the first step, place of the last): neighbours are one jump."""
    found: list[tuple[float, Key, int, int]] = []
    for key, one in series.items():
        places = np.flatnonzero(one.height >= JUMP)
        for run in np.split(places, np.flatnonzero(np.diff(places) > 2) + 1):
            if len(run):
                found.append((float(one.height[run].max()), key, int(run[0]), int(run[-1])))
    found.sort(key=lambda jump: (-jump[0], jump[1], jump[2]))
    return [(key, first, last) for _, key, first, last in found[:top]]
