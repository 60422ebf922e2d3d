"""Columns of occurrences are counted as one would by hand, and steps belong to the epochs that began by them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fgtrac.events.postings import KIND, ROW
from fgtrac.events.schema import NO_STEP
from fgtrac.query.tally import SHOWN_ROWS, UNKNOWN, Draw, Draws, Reach, Said, Tally, count, draws_of, epochs_of


def random_tally(seed: int, n: int = 300) -> tuple[Tally, list[tuple[int, int, int, int, bool]]]:
    rng = np.random.default_rng(seed)
    kinds = rng.choice([KIND["used"], KIND["neighbour"], KIND["delivered"]], n).astype(np.uint8)
    hops = np.where(kinds == KIND["neighbour"], rng.choice([1, 2, 5], n), rng.integers(1, 4, n)).astype(np.uint16)
    steps, epochs = rng.integers(1, 50, n).astype(np.uint64), rng.integers(-1, 4, n)
    superseded = rng.random(n) < 0.2
    columns = (kinds.tolist(), hops.tolist(), steps.tolist(), epochs.tolist(), superseded.tolist())
    return count(kinds, hops, steps, epochs, superseded), list(zip(*columns, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_every_count_is_the_number_of_its_occurrences(seed: int) -> None:
    tally, occurrences = random_tally(seed, n=3 * seed)
    seeds = [row for row in occurrences if row[0] == KIND["used"]]
    neighbours = [row for row in occurrences if row[0] == KIND["neighbour"]]
    by_epoch = Counter((epoch, 0) for _, _, _, epoch, _ in seeds)
    by_epoch += Counter((epoch, hop) for _, hop, _, epoch, _ in neighbours)
    told = {
        (epoch, hop): number
        for epoch, row in zip(tally.epochs, tally.counts.tolist(), strict=True)
        for hop, number in zip((0, *tally.hops), row, strict=True)
        if number
    }
    assert told == by_epoch
    assert (tally.seeds, tally.neighbours) == (len(seeds), len(neighbours))
    assert [tally.at_hop(hop) for hop in range(7)] == [sum(row[1] == hop for row in neighbours) for hop in range(7)]
    assert tally.superseded == (sum(row[4] for row in seeds), sum(row[4] for row in neighbours))
    assert tally.delivered == len(occurrences) - len(seeds) - len(neighbours)
    for span, rows in zip(tally.steps, (seeds, neighbours), strict=True):
        assert span == ((min(r[2] for r in rows), max(r[2] for r in rows)) if rows else None)


@pytest.mark.parametrize("epochs", [0, 1, 19, 20, 21, 100, 1001])
def test_a_table_has_few_rows_and_loses_nothing(epochs: int) -> None:
    tally = Tally(tuple(range(epochs)), (), np.arange(epochs).reshape(-1, 1), (None, None), (0, 0), 0)
    rows = tally.table()
    assert len(rows) <= SHOWN_ROWS
    assert sum(counts[0] for _, counts in rows) == sum(range(epochs))
    if epochs > 1:
        assert rows[0][0].split()[0] == "0"
        assert rows[-1][0].split()[-1] == str(epochs - 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_step_is_in_the_last_epoch_that_began_by_it(seed: int) -> None:
    """Also where epochs of two loaders overlap, and where some had no update."""
    rng = np.random.default_rng(seed)
    firsts = rng.integers(1, 40, 12).astype(np.uint64)
    firsts[rng.random(12) < 0.2] = NO_STEP
    steps = np.array([*range(45), NO_STEP], np.uint64)
    for step, epoch in zip(steps.tolist(), epochs_of(steps, firsts).tolist(), strict=True):
        begun = [e for e, first in enumerate(firsts.tolist()) if first <= step and step != NO_STEP]
        assert epoch == max(begun, default=UNKNOWN)
    assert epochs_of(steps, firsts[:0]).tolist() == [UNKNOWN] * len(steps)


def test_a_hop_is_beyond_reach_where_every_entry_that_was_read_says_so() -> None:
    """Entries 1 and 2 are of the whole graph, 3 of a sampler; in 4 the sample is a seed."""
    neighbours = [(KIND["neighbour"], hop, entry, 9) for entry in (1, 2, 3) for hop in (2, 3)]
    rows = np.array([*neighbours, neighbours[1], (KIND["used"], 0, 4, 9)], ROW)
    said: dict[int, Said] = {1: ("whole", 3), 2: ("whole", 3), 3: ("sampled", 3), 4: None}

    def read(*entries: int) -> Draws:
        return draws_of(rows, {entry: said[entry] for entry in entries})

    assert read(1, 2, 3, 4).reach == {2: Reach(3, 0, 0), 3: Reach(1, 3, 0)}
    assert (read(1, 2, 3, 4).each, read(1, 2).read, read(1, 2).named) == (
        (Draw("sampled", 3, 1), Draw("whole", 3, 2)), 2, 4
    )  # fmt: skip
    assert read(1, 2).reach == {2: Reach(2, 0, 1), 3: Reach(0, 3, 1)}
    assert read().reach == {2: Reach(0, 0, 3), 3: Reach(0, 0, 4)}
    words = [read(*entries).reach[3].words for entries in ((1, 2, 3), (1, 2), (3,), ())]
    assert words == [", in part beyond reach", ", beyond reach in 3 that were read", "", ""]
    assert draws_of(rows[rows["entry"] < 3], said).reach[3].words == ", beyond reach"
