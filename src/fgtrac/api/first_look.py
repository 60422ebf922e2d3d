"""The first look at a model that is to be scored: its factor pass, what that costs, and which samples spoil it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fgtrac.api.cost import Cost
from fgtrac.api.scored_rows import ScoredRows
from fgtrac.api.wish import Wish
from fgtrac.errors import ScoreError
from fgtrac.score.factor_files import BYTES, FOLDER, shard_rows
from fgtrac.score.factors import FactorPass
from fgtrac.score.finite import NotFinite, SamplesNotFinite
from fgtrac.score.gradients import Layer
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir

TIMED_BATCHES = 2
TIMED_BYTES = 1 << 23
TIMED_ROWS = 4096


def prepare(
    rows: ScoredRows, wish: Wish, step: int, make: Callable[[Any], FactorPass], name_of: Callable[[int], str]
) -> FactorPass:
    """The pass that `make` prepares from the first batch of these rows.

    SamplesNotFinite where that has NaN or infinity: all rows are gone over then, to count.
    """
    try:
        return make(next(iter(rows.batches(0, len(rows), wish.batch_size))))
    except NotFinite:
        count, first = _spoiled(rows, wish.batch_size, make)
        raise SamplesNotFinite(count, len(rows), rows.role, step, name_of(first)) from None


def _spoiled(rows: ScoredRows, batch_size: int, make: Callable[[Any], FactorPass]) -> tuple[int, int]:
    """How many rows are not finite, and the first: by the pass of the first batch that is."""
    ready: FactorPass | None = None
    count, first = 0, len(rows)
    for number, batch in enumerate(rows.batches(0, len(rows), batch_size)):
        try:
            if ready is None:
                ready = make(batch)
            else:
                ready(batch)
        except NotFinite as error:
            count += error.count
            first = min(first, number * batch_size + error.row)
    return count, first


def estimate(
    factors: FactorPass, rows: Sequence[ScoredRows], wish: Wish, layers: Sequence[Layer], at: TraceDir
) -> Cost:
    """What a kept checkpoint costs, from passes over a few batches, a file that is written and removed, and where there
    are validation samples from products of a few rows."""
    total = sum(map(len, rows))
    width = sum(sum(layer.columns.values()) for layer in layers)
    size = (width * BYTES[wish.dtype] + 4) * total
    files = sum(2 * -(-len(one) // shard_rows(layers, wish.dtype)) for one in rows)
    if wish.ggn:
        size += 4 * layers[0].size ** 2
        files += 1
    cost = Cost(_time_pass(factors, rows[0], wish.batch_size) * total, size, total, files)
    cost.seconds_a_file = _time_file(at, min(TIMED_BYTES, size // files))
    cost.seconds += files * cost.seconds_a_file
    if any(
        one.role == "validation" for one in rows
    ):  # each file is opened again, and two pieces of the log are written
        cost.seconds += (files + 2) * cost.seconds_a_file + _time_products(width) * total
    return cost


def _time_pass(factors: FactorPass, train: ScoredRows, size: int) -> float:
    """Seconds a row."""
    rows, began = 0, time.perf_counter()
    for batch in train.batches(0, min(len(train), TIMED_BATCHES * size), size):
        try:
            rows += len(factors(batch).losses)
        except ScoreError:
            rows += size  # the pass itself will say so
    return (time.perf_counter() - began) / max(1, rows)


def _time_file(at: TraceDir, size: int) -> float:
    """Seconds until a file of this size is on disk; 0 where the disk refuses, which the pass itself will say."""
    path = at.path / FOLDER / "timed"
    took = []
    try:
        for _ in range(3):
            began = time.perf_counter()
            durable.write_file(path, bytes(size))
            took.append(time.perf_counter() - began)
        return sorted(took)[1]
    except OSError:
        return 0.0
    finally:
        durable.remove(path)
        durable.remove_empty(path.parent, at.path)


def _time_products(width: int) -> float:
    """Seconds a row, to read a gradient and take its product with one target."""
    rows = np.ones((min(TIMED_ROWS, max(1, TIMED_BYTES // width)), width), dtype=np.float16)
    began = time.perf_counter()
    rows.astype(np.float32) @ np.ones(width, dtype=np.float32)
    return (time.perf_counter() - began) / len(rows)
