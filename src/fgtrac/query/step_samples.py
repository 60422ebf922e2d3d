"""Which samples each update took, in a form in which two logs can be compared step by step: 32 bytes for each step,
however many samples it took.

A step's mark is the sum of two 64-bit numbers for each of its samples (SplitMix64 of the sample's number under two
seeds), modulo 2^64: the order within a batch, and which rank or entry a sample stands in, make no difference. Two
different batches have the same mark by an accident of 2^-128. That says nothing against somebody who looks for such a
pair, which is no part of a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.query.training import TrainingLog

Marks = NDArray[np.uint64]
Numbers = NDArray[np.int64]
_SEEDS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)


@dataclass(frozen=True, slots=True, eq=False)
class Updates:
    """Columns by applied step of one optimizer, ascending, of what stands: `steps` (n,), `marks` (n, 2), `counts` (n,),
    `unsure` (n,) whether some batch of it has samples that nobody can name or may have held others."""

    steps: NDArray[np.uint64]
    marks: Marks
    counts: Numbers
    unsure: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class StepSamples:
    """The updates by the optimizer's number. `used` (m,): whether each sample was surely in an applied update, also in
    one that a resumed run went back behind; `times` (m,): in how many of those that stand; `epochs`: mark and count of
    each; `has_graph`: whether the samples of some batch are a graph's seeds, whose neighbours are not among them."""

    updates: dict[int, Updates]
    used: NDArray[np.bool_]
    times: Numbers
    epochs: dict[int, tuple[int, int, int]]
    has_graph: bool

    @property
    def last_step(self) -> int | None:
        """The last applied step of any optimizer."""
        return max((int(mine.steps[-1]) for mine in self.updates.values()), default=None)

    @property
    def count(self) -> int:
        """How many updates stand."""
        return sum(len(mine.steps) for mine in self.updates.values())

    @property
    def is_sure(self) -> bool:
        """Whether the samples of every update that stands are known."""
        return not any(mine.unsure.any() for mine in self.updates.values())


def read_step_samples(log: TrainingLog, numbers: Mapping[bytes, Numbers], total: int) -> StepSamples:
    """Read every `use` entry once. `numbers`: of each block the number below `total` of the sample at each ordinal,
    -1 for one that cannot be named. ProofError for a block or an ordinal that is not registered."""
    marks = _marks_of(total)
    used, times = np.zeros(total + 1, dtype=bool), np.zeros(total + 1, dtype=np.int64)
    epochs: dict[int, tuple[int, int, int]] = {}
    columns: dict[int, list[tuple[NDArray[Any], ...]]] = {}
    has_graph = False
    for entry, event in log.events("use"):
        samples = _samples(entry, event, numbers)
        applied = event["status"] == STATUS["applied"]
        among = event["attribution"] == ATTRIBUTION["among"]
        counts = event["count"].astype(np.int64)
        has_graph = has_graph or "graph" in event
        stands = applied & ~log.superseded(entry, event["step"])
        used[samples[np.repeat(applied & ~among, counts)]] = True
        np.add.at(times, samples[np.repeat(stands & ~among, counts)], 1)
        sums = _sum_up(marks[samples], counts)
        unsure = among | (_sum_up((samples < 0)[:, None].astype(np.uint64), counts)[:, 0] > 0)
        if stands.any():
            mine = event["step"][stands], sums[stands], counts[stands], unsure[stands]
            columns.setdefault(event["optimizer"], []).append(mine)
            _add_epochs(epochs, event["epoch"][stands], sums[stands], counts[stands])
    updates = {optimizer: _by_step(mine) for optimizer, mine in sorted(columns.items())}
    return StepSamples(updates, used[:-1], times[:-1], epochs, has_graph)


def _by_step(columns: list[tuple[NDArray[Any], ...]]) -> Updates:
    """One row for each step of some batches' steps, marks, counts and doubts."""
    steps, sums, counts, unsure = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(steps, kind="stable")
    found, first = np.unique(steps[order], return_index=True)
    marks, counts = (np.add.reduceat(column[order], first, axis=0) for column in (sums, counts))
    return Updates(found, marks, counts, np.logical_or.reduceat(unsure[order], first))


def _samples(entry: int, event: Mapping[str, Any], numbers: Mapping[bytes, Numbers]) -> Numbers:
    mine, ordinals = numbers.get(bytes(event["block"])), event["ordinals"]
    if mine is None or (len(ordinals) and int(ordinals.max()) >= len(mine)):
        raise ProofError(f"entry {entry} uses samples of block {event['block'].hex()} that are not registered")
    found: Numbers = mine[ordinals]
    return found


def _marks_of(total: int) -> Marks:
    """(total + 1, 2) two numbers for each sample; the last row, which -1 leads to, is nobody's and 0."""
    marks = np.zeros((total + 1, 2), dtype=np.uint64)
    for column, seed in enumerate(_SEEDS):
        mixed = np.arange(1, total + 1, dtype=np.uint64) * np.uint64(seed)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        marks[:total, column] = mixed ^ (mixed >> np.uint64(31))
    return marks


def _sum_up(rows: Marks, counts: Numbers) -> Marks:
    """(n, columns) the sum of each batch's rows, modulo 2^64; an empty batch has 0."""
    before = np.zeros((len(rows) + 1, rows.shape[1]), dtype=np.uint64)
    np.cumsum(rows, axis=0, out=before[1:])
    stops = np.cumsum(counts)
    sums: Marks = before[stops] - before[stops - counts]
    return sums


def _add_epochs(epochs: dict[int, tuple[int, int, int]], which: NDArray[Any], sums: Marks, counts: Numbers) -> None:
    for epoch in np.unique(which).tolist():
        mine, known = which == epoch, epochs.get(epoch, (0, 0, 0))
        more = [int(sums[mine, n].sum(dtype=np.uint64)) for n in (0, 1)]
        added = [(a + b) & 0xFFFFFFFFFFFFFFFF for a, b in zip(known, more, strict=False)]
        epochs[epoch] = (added[0], added[1], known[2] + int(counts[mine].sum()))
