"""A jump of the training loss is found, and so is the sample behind it, from the losses in the log alone."""

from __future__ import annotations

import time
from array import array
from pathlib import Path

import numpy as np
import pytest

from fgtrac.errors import ProofError
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.query.blocks import Blocks
from fgtrac.query.seals import open_full_seal
from fgtrac.query.spikes import InSpike, Spikes, find_spikes
from traces import Made, Writing, start_trace

SAMPLES, BATCH = 200, 20


def write_epoch(
    writing: Writing, order: np.ndarray, losses: np.ndarray | None, epoch: int, loader: int = 1, size: int = BATCH
) -> None:
    """One epoch in batches; `losses` by row of the data set, or none recorded."""
    for number, start in enumerate(range(0, len(order), size)):
        rows = order[start : start + size]
        writing.step += 1
        said = (epoch, number, writing.step, STATUS["applied"], ATTRIBUTION["exact"])
        half = None if losses is None else losses[rows].astype(np.float16)
        writing.recorder.use(writing.placement, loader, 1, said, array("I", rows.tolist()), half)


def finish(made: Made, writing: Writing) -> None:
    writing.end()
    made.seal()


def spikes_of(made: Made, **options: int) -> Spikes:
    seal = open_full_seal(made.trace)
    return find_spikes(seal.log, Blocks(seal.log, seal.event["counts"]["samples"]), **options)


def usual_losses(generator: np.random.Generator, epoch: int) -> np.ndarray:
    """Losses that fall over the epochs, with some samples harder than others all along."""
    hard = np.linspace(0.5, 1.5, SAMPLES)
    return hard * (0.2 + 2.0 * 0.7**epoch) * generator.uniform(0.8, 1.2, SAMPLES)


def trained(folder: Path, corrupt: dict[tuple[int, int], float], epochs: int = 8) -> Made:
    """Epochs of shuffled training; `corrupt` is (epoch, row) -> the loss that the sample has there."""
    made, writing = start_trace(folder, samples=SAMPLES)
    generator = np.random.default_rng(3)
    for epoch in range(epochs):
        losses = usual_losses(generator, epoch)
        for (at, row), loss in corrupt.items():
            losses[row] = loss if at == epoch else losses[row]
        write_epoch(writing, generator.permutation(SAMPLES), losses, epoch)
    finish(made, writing)
    return made


def row_of(made: Made, sample: InSpike) -> int:
    return made.ids.index(sample.id)


def test_a_sample_that_was_corrupt_once_is_the_first_of_the_highest_jump(tmp_path: Path) -> None:
    made = trained(tmp_path, {(5, 17): 60.0})
    found = spikes_of(made)
    first = found.spikes[0]
    assert first.epoch == 5
    assert first.loss > 3 * first.usual
    assert not first.shared
    assert row_of(made, first.samples[0]) == 17
    assert first.samples[0].rank_by_loss == 1
    assert first.samples[0].other_uses == 7
    assert (found.steps, found.events, found.without, found.not_numbers) == (80, 1600, 0, 0)


def test_a_sample_that_is_always_corrupt_is_among_the_first_three_of_every_jump(tmp_path: Path) -> None:
    made = trained(tmp_path, {(epoch, 23): 40.0 for epoch in range(8)})
    found = spikes_of(made)
    assert len(found.spikes) >= 5
    for spike in found.spikes:
        assert 23 in [row_of(made, s) for s in spike.samples[:3]]


def test_a_sample_worse_than_usual_for_it_comes_before_one_that_is_always_hard(tmp_path: Path) -> None:
    """Row 5 jumps to 6 where it is usually below 1; a hard one beside it has a higher loss, as it always has."""
    made, writing = start_trace(tmp_path, samples=SAMPLES)
    generator = np.random.default_rng(0)
    for epoch in range(6):
        losses = np.abs(np.linspace(0.0, 8.0, SAMPLES) + generator.normal(0, 0.1, SAMPLES))
        order = np.argsort((np.arange(SAMPLES) * 7 + epoch) % 10, kind="stable")
        if epoch == 4:
            losses[: SAMPLES // 20] += 6.0
        write_epoch(writing, order, losses, epoch)
    finish(made, writing)
    step = 4 * 10 + 1
    (spike,) = spikes_of(made, step=step, samples=20).spikes
    by_excess = [row_of(made, s) for s in spike.samples]
    assert by_excess[0] < SAMPLES // 20
    assert spike.samples[0].rank_by_loss > 1


def test_losses_that_fall_fast_at_the_start_are_no_jump(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=SAMPLES)
    generator = np.random.default_rng(1)
    for epoch in range(8):
        losses = (8.0 if epoch == 0 else 0.5) + generator.normal(0, 0.02, SAMPLES)
        write_epoch(writing, generator.permutation(SAMPLES), losses, epoch)
    finish(made, writing)
    assert spikes_of(made).spikes == ()


def test_where_the_whole_batch_rose_it_says_so(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=SAMPLES)
    generator = np.random.default_rng(1)
    for epoch in range(6):
        losses = usual_losses(generator, epoch)
        order = generator.permutation(SAMPLES)
        if epoch == 4:
            losses[order[60:80]] += 10
        write_epoch(writing, order, losses, epoch)
    finish(made, writing)
    first = spikes_of(made).spikes[0]
    assert (first.step, first.shared, first.size) == (44, True, BATCH)


def test_neighbouring_steps_are_one_jump(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=SAMPLES)
    generator = np.random.default_rng(1)
    for epoch in range(10):
        losses = 0.5 + generator.normal(0, 0.02, SAMPLES)
        order = generator.permutation(SAMPLES)
        if epoch == 5:
            losses[order[60:140]] += 4
        write_epoch(writing, order, losses, epoch)
    finish(made, writing)
    found = spikes_of(made).spikes
    assert [(s.step, s.until) for s in found] == [(54, 57)]


def test_two_loaders_are_measured_by_their_own_losses(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=SAMPLES)
    generator = np.random.default_rng(1)
    for epoch in range(6):
        low, high = 0.5 + generator.normal(0, 0.02, SAMPLES), 50 + generator.normal(0, 2, SAMPLES)
        if epoch == 3:
            low[9] = 30.0
        write_epoch(writing, generator.permutation(SAMPLES), low, epoch, loader=1)
        write_epoch(writing, generator.permutation(SAMPLES), high, epoch, loader=2)
    finish(made, writing)
    (spike,) = spikes_of(made).spikes
    assert row_of(made, spike.samples[0]) == 9


def test_losses_that_are_no_numbers_are_counted_and_too_large_ones_are_jumps(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=SAMPLES)
    generator = np.random.default_rng(1)
    for epoch in range(6):
        losses = 0.5 + generator.normal(0, 0.02, SAMPLES)
        losses[3] = np.nan
        losses[4] = 1e5 if epoch == 3 else 0.5
        with np.errstate(over="ignore"):
            write_epoch(writing, generator.permutation(SAMPLES), losses, epoch)
    finish(made, writing)
    found = spikes_of(made)
    assert (found.not_numbers, found.events) == (6, 6 * (SAMPLES - 1))
    assert row_of(made, found.spikes[0].samples[0]) == 4


def test_uses_without_losses_are_counted_and_nothing_is_made_of_them(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=SAMPLES)
    write_epoch(writing, np.arange(SAMPLES), None, 0)
    finish(made, writing)
    found = spikes_of(made)
    assert (found.spikes, found.steps, found.without) == ((), 0, SAMPLES)


def test_a_million_sample_events_take_less_than_two_seconds(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=10_000, parts=20)
    generator = np.random.default_rng(1)
    for epoch in range(100):
        losses = generator.gamma(2.0, 0.2, 10_000)
        losses[4_123] = 200.0 if epoch == 62 else losses[4_123]
        write_epoch(writing, generator.permutation(10_000), losses, epoch, size=100)
    finish(made, writing)
    started = time.process_time()
    found = spikes_of(made)
    assert time.process_time() - started < 2.0
    assert found.events == 1_000_000
    assert row_of(made, found.spikes[0].samples[0]) == 4_123


def test_blocks_give_ids_contents_and_places_of_a_block_in_parts(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=50, parts=4)
    finish(made, writing)
    seal = open_full_seal(made.trace)
    blocks = Blocks(seal.log, seal.event["counts"]["samples"])
    assert [blocks.id(writing.block, n) for n in range(50)] == sorted(made.ids)
    assert blocks.find(made.ids[7]) == [(writing.block, sorted(made.ids).index(made.ids[7]))]
    assert blocks.find(bytes(32)) == []
    assert blocks.dataset(writing.block) == "digits"
    contents = blocks.contents(writing.block)
    assert contents is not None
    assert len(np.unique(contents, axis=0)) == 25
    assert blocks.subjects(writing.block) is None
    with pytest.raises(ProofError, match="which block"):
        blocks.id(writing.block, 50)
    with pytest.raises(ProofError, match="no entries register"):
        blocks.ids(bytes(16))
