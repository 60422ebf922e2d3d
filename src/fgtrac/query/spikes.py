"""Where the training loss jumped, and who was in that update: from the losses in `use` entries, without any model.

A step jumps where its mean loss lies far above the running median of its neighbours and above that of the steps just
before it, measured in median absolute deviations. Its samples are ranked by how much their loss exceeds what is usual
for them: their own offset at their other uses where that is within what is common, and nothing where it is not (a
sample that is always far out has no usual to hide behind). The raw loss, which costs nothing, stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
COMMON = 3.0  # deviations within which a sample's own offset counts as usual for it
_LARGEST = float(np.finfo(np.float16).max)
_MAD = 1.4826  # a normal distribution's standard deviation in median absolute deviations
_USE = encode("kind") + encode("use")

Key = tuple[bytes, int, int]  # writer, loader, optimizer: whose losses are of one kind
Floats = NDArray[np.float64]
Batches = list[tuple[NDArray[Any], ...]]  # steps, epochs, entries, sums and counts of losses, an entry each


@dataclass(frozen=True, slots=True)
class InSpike:
    """One sample of a step that jumped: its loss there, what is usual for it, how far above, how often it was used
    otherwise, and its rank by raw loss (0 is the highest)."""

    block: bytes
    ordinal: int
    loss: float
    usual: float
    other_uses: int
    rank_by_loss: int

    @property
    def excess(self) -> float:
        """How far its loss lies above what is usual."""
        return self.loss - self.usual


@dataclass(frozen=True, slots=True)
class Spike:
    """A step whose loss jumped: mean loss, what is usual around it, by how many deviations it is above, the step
    that the jump lasts until, the size of the batch, and the samples by descending excess.

    `shared`: the middle sample of the batch rose by at least half as much as the mean, so that the update before is
    as likely the cause as any sample of this one."""

    key: Key
    step: int
    epoch: int
    until: int
    loss: float
    usual: float
    height: float
    size: int
    shared: bool
    entry: int
    samples: tuple[InSpike, ...]


@dataclass(frozen=True, slots=True)
class Spikes:
    """The jumps, highest first; how many applied steps and sample events had losses, how many events had none, and
    how many losses were no numbers."""

    spikes: tuple[Spike, ...]
    steps: int
    events: int
    without: int
    not_numbers: int


@dataclass(slots=True)
class _Series:
    """The steps of one writer, loader and optimizer, ascending, with their mean losses and what is usual there."""

    steps: NDArray[np.uint64]
    epochs: NDArray[np.uint32]
    entries: NDArray[np.int64]
    losses: Floats
    usual: Floats = field(default_factory=lambda: np.empty(0))
    height: Floats = field(default_factory=lambda: np.empty(0))

    def usual_at(self, steps: NDArray[np.uint64]) -> Floats:
        at: Floats = self.usual[np.searchsorted(self.steps, steps)]
        return at


def find_spikes(log: SealedLog, *, top: int = 10, samples: int = 10, step: int | None = None) -> Spikes:
    """The `top` highest jumps of a sealed log with the `samples` most striking samples of each; with `step`, that step
    of every series whether or not it jumped.

    Reads the `use` entries twice and keeps a few numbers for each batch; each entry is checked against the root.
    """
    numbers, gathered, events, without, bad = _gather(log)
    series = {key: _series(batches) for key, batches in gathered.items()}
    for one in series.values():
        one.usual, one.height = _heights(one.losses)
    if step is None:
        chosen = _jumps(series, top)
    else:
        chosen = [
            (key, int(at), int(at))
            for key, one in series.items()
            for at in np.flatnonzero(one.steps == np.uint64(step))
        ]
    events_at = [_events_at(log, numbers, key, series[key], at) for key, at, _ in chosen]
    others = _other_uses(log, numbers, series, events_at)
    spikes = [
        _spike(series[key], key, at, last, here, others, samples)
        for (key, at, last), here in zip(chosen, events_at, strict=True)
    ]
    return Spikes(tuple(spikes), sum(len(s.steps) for s in series.values()), events, without, bad)


def _use_entries(log: SealedLog) -> Iterator[int]:
    """The numbers of the `use` entries; `log.event` checks each when it is read."""
    for number in range(log.head.size):
        if _USE in log.peek(number) and log.event(number)["kind"] == "use":
            yield number


def _gather(log: SealedLog) -> tuple[list[int], dict[Key, Batches], int, int, int]:
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
        losses = _numbers(event["losses"])
        known = ~np.isnan(losses)
        events += int((known & applied[owner]).sum())
        bad += int((~known & applied[owner]).sum())
        counts = np.bincount(owner[known], minlength=len(applied))
        sums = np.bincount(owner[known], weights=losses[known], minlength=len(applied))
        some = applied & (counts > 0)
        batches = gathered.setdefault(_key(event), [])
        entry = np.full(int(some.sum()), number)
        batches.append((event["step"][some], event["epoch"][some], entry, sums[some], counts[some]))
    return numbers, {key: b for key, b in gathered.items() if any(len(c[0]) for c in b)}, events, without, bad


def _key(event: Any) -> Key:
    return bytes(event["writer"]), int(event["loader"]), int(event["optimizer"])


def _numbers(losses: NDArray[np.float16]) -> Floats:
    """Losses as float64; those too large for float16 count as its largest number."""
    return np.clip(losses.astype(np.float64), -_LARGEST, _LARGEST)


def _series(batches: Batches) -> _Series:
    """One row a step: batches of one step, and pieces of one batch, are put together."""
    step, epoch, entry, sums, counts = (np.concatenate(column) for column in zip(*batches, strict=True))
    steps, first, owner = np.unique(step, return_index=True, return_inverse=True)
    losses = np.bincount(owner, weights=sums) / np.bincount(owner, weights=counts)
    return _Series(steps, epoch[first], entry[first], losses)


def _heights(losses: Floats) -> tuple[Floats, Floats]:
    """For each step what is usual there (the higher of the two medians) and how many deviations above it lies."""
    n = len(losses)
    if n < LEAST_STEPS:
        return np.full(n, np.median(losses)), np.full(n, -np.inf)
    medians = _running(losses, NEAR)
    spread = _MAD * _running(np.abs(losses - medians), WINDOW)
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


def _jumps(series: dict[Key, _Series], top: int) -> list[tuple[Key, int, int]]:
    """The highest jumps as (series, place of the first step, place of the last): neighbours are one jump."""
    found: list[tuple[float, Key, int, int]] = []
    for key, one in series.items():
        places = np.flatnonzero(one.height >= JUMP)
        for run in np.split(places, np.flatnonzero(np.diff(places) > 2) + 1):
            if len(run):
                found.append((float(one.height[run].max()), key, int(run[0]), int(run[-1])))
    found.sort(key=lambda jump: (-jump[0], jump[1], jump[2]))
    return [(key, first, last) for _, key, first, last in found[:top]]


@dataclass(frozen=True, slots=True, eq=False)
class _Events:
    """Sample events of a step, or of many: who (block, ordinal), the loss, and the series' usual loss there."""

    blocks: NDArray[np.void]
    ordinals: NDArray[np.uint32]
    losses: Floats
    usual: Floats
    steps: NDArray[np.uint64]
    which_key: NDArray[np.intp]
    keys: tuple[Key, ...]


def _read(log: SealedLog, number: int) -> tuple[Key, NDArray[np.void], Any, NDArray[np.uint64], Floats]:
    """The applied sample events of an entry: key, blocks, ordinals, steps, losses (numbers only)."""
    event = log.event(number)
    owner = np.repeat(np.arange(len(event["count"])), event["count"])
    losses = _numbers(event["losses"])
    some = (event["status"] == STATUS["applied"])[owner] & ~np.isnan(losses)
    blocks = np.full(int(some.sum()), np.void(bytes(event["block"])), dtype="V16")
    return _key(event), blocks, event["ordinals"][some], event["step"][owner][some], losses[some]


def _events_at(log: SealedLog, numbers: Sequence[int], key: Key, one: _Series, at: int) -> _Events:
    """Everybody in the step at place `at`: its pieces lie in entries near the first of them."""
    parts = []
    for number in (n for n in numbers if n >= one.entries[at]):
        its_key, blocks, ordinals, steps, losses = _read(log, number)
        if its_key != key:
            continue
        here = steps == one.steps[at]
        parts.append((blocks[here], ordinals[here], losses[here], steps[here]))
        if len(steps) and steps.min() > one.steps[at]:
            break
    blocks, ordinals, losses, steps = (np.concatenate(column) for column in zip(*parts, strict=True))
    zeros = np.zeros(len(losses), dtype=np.intp)
    return _Events(blocks, ordinals, losses, one.usual_at(steps), steps, zeros, (key,))


def _other_uses(
    log: SealedLog, numbers: Sequence[int], series: dict[Key, _Series], events_at: Sequence[_Events]
) -> _Events | None:
    """The second reading: every use, with its loss, of anybody who is in one of the steps."""
    if not events_at:
        return None
    wanted: dict[bytes, NDArray[np.uint32]] = {}
    blocks = np.concatenate([e.blocks for e in events_at])
    ordinals = np.concatenate([e.ordinals for e in events_at])
    for block in np.unique(blocks):
        wanted[block.tobytes()] = np.unique(ordinals[blocks == block])
    keys = tuple(series)
    parts = []
    for number in numbers:
        key, blocks, ordinals, steps, losses = _read(log, number)
        if not len(blocks) or key not in series:
            continue
        mine = np.isin(ordinals, wanted.get(blocks[0].tobytes(), np.empty(0, dtype=np.uint32)))
        which = np.full(int(mine.sum()), keys.index(key))
        usual = series[key].usual_at(steps[mine])
        parts.append((blocks[mine], ordinals[mine], losses[mine], usual, steps[mine], which))
    blocks, ordinals, losses, usual, steps, which = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Events(blocks, ordinals, losses, usual, steps, which, keys)


def _spike(one: _Series, key: Key, at: int, last: int, here: _Events, others: _Events | None, samples: int) -> Spike:
    assert others is not None
    base = float(one.usual[at])
    offsets, counts = _own_offsets(here, others, key, int(one.steps[at]))
    usual = base + offsets
    excess = here.losses - usual
    rank = np.empty(len(excess), dtype=np.intp)
    rank[np.argsort(-here.losses, kind="stable")] = np.arange(len(excess))
    order = np.lexsort((here.ordinals, -here.losses, -excess))[:samples]
    listed = tuple(
        InSpike(
            here.blocks[i].tobytes(),
            int(here.ordinals[i]),
            float(here.losses[i]),
            float(usual[i]),
            int(counts[i]),
            int(rank[i]),
        )
        for i in order.tolist()
    )
    rise = float(one.losses[at]) - base
    shared = len(excess) > 1 and rise > 0 and float(np.median(excess)) >= rise / 2
    return Spike(
        key, int(one.steps[at]), int(one.epochs[at]), int(one.steps[last]), float(one.losses[at]), base,
        float(one.height[at : last + 1].max()), len(excess), shared, int(one.entries[at]), listed,
    )  # fmt: skip


def _own_offsets(here: _Events, others: _Events, key: Key, step: int) -> tuple[Floats, NDArray[np.intp]]:
    """For each sample of a step the median of (loss - what was usual then) over its other uses, 0 where it has none
    or is always far out; and how many other uses there are."""
    itself = (others.which_key == others.keys.index(key)) & (others.steps == np.uint64(step))
    names = np.concatenate([_names(here), _names(others)[~itself]])
    _, who = np.unique(names, return_inverse=True)
    mine, theirs = who[: len(here.losses)], who[len(here.losses) :]
    relevant = np.isin(theirs, mine)
    theirs, values = theirs[relevant], (others.losses - others.usual)[~itself][relevant]
    order = np.lexsort((values, theirs))
    theirs, values = theirs[order], values[order]
    start, stop = np.searchsorted(theirs, mine, "left"), np.searchsorted(theirs, mine, "right")
    counts = stop - start
    offsets = np.zeros(len(mine))
    some = counts > 0
    low, high = (start + (counts - 1) // 2)[some], (start + counts // 2)[some]
    offsets[some] = (values[low] + values[high]) / 2
    if len(values):
        spread = _MAD * float(np.median(np.abs(values - np.median(values))))
        offsets[offsets > COMMON * spread] = 0.0
    return offsets, counts


def _names(events: _Events) -> NDArray[np.void]:
    """(n,) 20 bytes each: block and ordinal."""
    rows = np.empty(len(events.ordinals), dtype=[("block", "V16"), ("ordinal", ">u4")])
    rows["block"], rows["ordinal"] = events.blocks, events.ordinals
    return rows.view("V20")
