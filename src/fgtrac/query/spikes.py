"""Where the training loss jumped, and who was in that update: from the losses in `use` entries, without any model.

A step jumps where its mean loss lies far above the running median of its neighbours and above that of the steps just
before it, measured in median absolute deviations. Its samples are ranked by how much their loss exceeds what is usual
for them: their own offset at their other uses where that is within what is common, and nothing where it is not (a
sample that is always far out has no usual to hide behind). The raw loss, which costs nothing, stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.drawing.charts import bars
from fgtrac.drawing.notebook import shown, words
from fgtrac.events.one_line import one_line
from fgtrac.events.schema import STATUS
from fgtrac.query.blocks import Blocks
from fgtrac.query.jumps import MAD, Floats, Key, Series, find_jumps, gather, heights, key_of, numbers_of, series_of
from fgtrac.query.log import SealedLog

COMMON = 3.0  # deviations within which a sample's own offset counts as usual for it
NO_LOSSES = (
    "no losses are recorded, so nobody can tell where they jumped; call run.losses(values) before optimizer.step()"
)


@dataclass(frozen=True, slots=True)
class InSpike:
    """One sample of a step that jumped: its loss there, what is usual for it, how far above, how often it was used
    otherwise, and its rank by raw loss (1 is the highest)."""

    id: bytes
    name: str | None
    loss: float
    usual: float
    other_uses: int
    rank_by_loss: int

    @property
    def excess(self) -> float:
        """How far its loss lies above what is usual."""
        return self.loss - self.usual

    def as_json(self) -> dict[str, Any]:
        """Plain data; the id as hex."""
        said = {"id": self.id.hex(), **({"name": self.name} if self.name else {}), "loss": self.loss}
        return said | {
            "usual": self.usual,
            "excess": self.excess,
            "other_uses": self.other_uses,
            "rank_by_loss": self.rank_by_loss,
        }


@dataclass(frozen=True, slots=True)
class Spike:
    """A step whose loss jumped: mean loss, what is usual around it, by how many deviations it lies above, the step
    that the jump lasts until, the size of the batch, and its samples by descending excess.

    `shared`: the middle sample of the batch rose by at least half as much as the mean, so that the update before is
    as likely the cause as any sample of this one."""

    loader: int
    optimizer: int
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

    @property
    def title(self) -> str:
        """Where it is and how high, in words."""
        until = f" to {self.until}" if self.until != self.step else ""
        words = f"step {self.step}{until} (epoch {self.epoch}): loss {self.loss:.4g}, usually {self.usual:.4g}"
        return words + (f", {self.height:.0f} deviations above" if np.isfinite(self.height) else "")

    @property
    def caution(self) -> str:
        """What else may be the cause; empty where the jump is one sample's."""
        words = "the whole batch rose, so the update before it is as likely the cause"
        return f"{words}: fgtrac spikes --step {self.step - 1} lists its samples" if self.shared else ""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        names = ("step", "epoch", "until", "loss", "usual", "height", "size", "shared", "loader", "optimizer", "entry")
        return {n: getattr(self, n) for n in names} | {"samples": [sample.as_json() for sample in self.samples]}


@dataclass(frozen=True, slots=True)
class Spikes:
    """The jumps, highest first; how many applied steps and sample events had losses, how many events had none, and
    how many losses were no numbers."""

    spikes: tuple[Spike, ...]
    steps: int
    events: int
    without: int
    not_numbers: int

    @property
    def is_known(self) -> bool:
        """Whether any loss was recorded, so that something can be told at all."""
        return self.events > 0

    @property
    def basis(self) -> str:
        """What the answer rests on, in words."""
        if not self.is_known:
            return NO_LOSSES
        words = f"from {self.events:,} losses in {self.steps:,} steps, by running medians"
        words += f"; {self.without:,} sample events have no loss" if self.without else ""
        return words + (f"; {self.not_numbers:,} losses were no numbers" if self.not_numbers else "")

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        counts = {n: getattr(self, n) for n in ("steps", "events", "without", "not_numbers")}
        return {**counts, "basis": self.basis, "spikes": [spike.as_json() for spike in self.spikes]}

    def _repr_html_(self) -> str:
        """For notebooks."""
        heights = [(f"step {spike.step}", spike.height) for spike in self.spikes]
        chart = bars(heights, title="how far the loss jumped", x="median absolute deviations") if heights else ""
        return shown(chart, words(str(self)))

    def __str__(self) -> str:
        if not self.is_known:
            return self.basis
        lines = [line for spike in self.spikes for line in _lines(spike)] or ["no step's loss jumped"]
        return "\n".join(map(one_line, [*lines, self.basis]))


def _lines(spike: Spike) -> list[str]:
    lines = [spike.title, *([f"  {spike.caution}"] if spike.caution else [])]
    for s in spike.samples:
        usual = f"usually {s.usual:.4g}" if s.other_uses else f"{s.usual:.4g} is usual there"
        lines.append(f"  {s.name or s.id.hex()[:16]}: loss {s.loss:.4g} (rank {s.rank_by_loss}), {usual}")
    return lines


def find_spikes(
    log: SealedLog,
    blocks: Blocks,
    name_of: Callable[[bytes], str | None] = lambda _: None,
    *,
    top: int = 5,
    samples: int = 5,
    step: int | None = None,
) -> Spikes:
    """The `top` highest jumps of a sealed log with the `samples` most striking samples of each; with `step`, that step
    of every series whether or not it jumped. ValueError for a step without losses, where others have some.

    Reads the `use` entries twice and keeps a few numbers for each batch; each entry is checked against the root.
    """
    numbers, gathered, events, without, bad = gather(log)
    series = {key: series_of(batches) for key, batches in gathered.items()}
    for one in series.values():
        one.usual, one.height = heights(one.losses)
    if step is None:
        chosen = find_jumps(series, top)
    else:
        chosen = [
            (key, int(at), int(at))
            for key, one in series.items()
            for at in np.flatnonzero(one.steps == np.uint64(step))
        ]
        if series and not chosen:
            first, last = (f(int(f(one.steps)) for one in series.values()) for f in (min, max))
            raise ValueError(f"no update {step} has losses; updates from {first} to {last} have some")
    events_at = [_events_at(log, numbers, key, series[key], at) for key, at, _ in chosen]
    others = _other_uses(log, numbers, series, events_at)
    spikes = []
    for (key, at, last), here in zip(chosen, events_at, strict=True):
        assert others is not None
        offsets, counts = _own_offsets(here, others, key, int(series[key].steps[at]))
        usual = float(series[key].usual[at]) + offsets
        listed = [
            _sample(here, usual, counts, row, rank, blocks, name_of) for row, rank in _order(here, usual, samples)
        ]
        spikes.append(_spike(series[key], key, at, last, here.losses - usual, listed))
    return Spikes(tuple(spikes), sum(len(s.steps) for s in series.values()), events, without, bad)


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
    losses = numbers_of(event["losses"])
    some = (event["status"] == STATUS["applied"])[owner] & ~np.isnan(losses)
    blocks = np.full(int(some.sum()), np.void(bytes(event["block"])), dtype="V16")
    return key_of(event), blocks, event["ordinals"][some], event["step"][owner][some], losses[some]


def _events_at(log: SealedLog, numbers: Sequence[int], key: Key, one: Series, at: int) -> _Events:
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
    log: SealedLog, numbers: Sequence[int], series: dict[Key, Series], events_at: Sequence[_Events]
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


def _order(here: _Events, usual: Floats, samples: int) -> list[tuple[int, int]]:
    """(row, rank by raw loss) of the samples of a step, by descending excess."""
    rank = np.empty(len(usual), dtype=np.intp)
    rank[np.argsort(-here.losses, kind="stable")] = np.arange(1, len(usual) + 1)
    order = np.lexsort((here.ordinals, -here.losses, usual - here.losses))[:samples]
    return list(zip(order.tolist(), rank[order].tolist(), strict=True))


def _sample(
    here: _Events,
    usual: Floats,
    counts: NDArray[np.intp],
    row: int,
    rank: int,
    blocks: Blocks,
    name_of: Callable[[bytes], str | None],
) -> InSpike:
    sample_id = blocks.id(here.blocks[row].tobytes(), int(here.ordinals[row]))
    loss, usually = float(here.losses[row]), float(usual[row])
    return InSpike(sample_id, name_of(sample_id), loss, usually, int(counts[row]), rank)


def _spike(one: Series, key: Key, at: int, last: int, excess: Floats, listed: Sequence[InSpike]) -> Spike:
    base, loss = float(one.usual[at]), float(one.losses[at])
    shared = len(excess) > 1 and loss > base and float(np.median(excess)) >= (loss - base) / 2
    height = float(one.height[at : last + 1].max())
    return Spike(
        key[1], key[2], int(one.steps[at]), int(one.epochs[at]), int(one.steps[last]), loss, base, height,
        len(excess), shared, int(one.entries[at]), tuple(listed),
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
        spread = MAD * float(np.median(np.abs(values - np.median(values))))
        offsets[offsets > COMMON * spread] = 0.0
    return offsets, counts


def _names(events: _Events) -> NDArray[np.void]:
    """(n,) 20 bytes each: block and ordinal."""
    rows = np.empty(len(events.ordinals), dtype=[("block", "V16"), ("ordinal", ">u4")])
    rows["block"], rows["ordinal"] = events.blocks, events.ordinals
    return rows.view("V20")
