"""The matrix of loaders: whatever a loader does, each update is filed under the samples that its batch held."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    Subset,
    WeightedRandomSampler,
    default_collate,
)

from fgtrac.api.run import Run
from loader_truth import Read, Rows, Trainer, check, updates

WORKERS = pytest.mark.parametrize("workers", [0, 2])
LOADER = pytest.mark.matrix


class Bulk(Rows):
    """Fetched a batch at a time."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class ByList(Rows):
    """Asked for a whole batch, as with batch_size=None."""

    def __getitem__(self, index: Any) -> Any:
        return self.features[index], torch.as_tensor(index)


class Slow(Rows):
    """The first rows take longer, so that one worker lags behind."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index < 2:
            threading.Event().wait(0.05)
        return super().__getitem__(index)


class OddsFirst(Sampler[int]):
    """A sampler of the user's own."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        yield from range(1, self.rows, 2)
        yield from range(0, self.rows, 2)

    def __len__(self) -> int:
        return self.rows


class Growing(Sampler[list[int]]):
    """Batches of 1, 2, 3, ... rows; one row twice in the last."""

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([0], [1, 2], [3, 4, 5], [6, 7, 8, 9], [10, 11, 10])


def as_map(items: list[Any]) -> dict[str, Any]:
    features, who = default_collate(items)
    return {"who": who, "features": features}


def options(rows: int = 20) -> dict[str, tuple[type[Rows], dict[str, Any]]]:
    by_list = BatchSampler(RandomSampler(range(rows)), 4, drop_last=False)
    return {
        "in order": (Rows, {"batch_size": 4}),
        "shuffled": (Rows, {"batch_size": 3, "shuffle": True}),
        "last dropped": (Rows, {"batch_size": 3, "shuffle": True, "drop_last": True}),
        "custom sampler": (Rows, {"batch_size": 4, "sampler": OddsFirst(rows)}),
        "custom batch_sampler": (Rows, {"batch_sampler": Growing()}),
        "weights, with replacement": (Rows, {"batch_size": 4, "sampler": WeightedRandomSampler([1.0] * rows, 30)}),
        "__getitems__": (Bulk, {"batch_size": 4, "shuffle": True}),
        "batch_size=None": (Rows, {"batch_size": None, "shuffle": True}),
        "batch_size=None, lists drawn": (ByList, {"batch_size": None, "sampler": by_list}),
        "collated to a dict": (Rows, {"batch_size": 4, "shuffle": True, "collate_fn": as_map}),
    }


@WORKERS
@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=LOADER("DataLoader", c, attribution="exact")) for c in options()]
)
def test_each_update_is_filed_under_the_rows_that_the_loop_trained_on(
    run: Run, log: Read, case: str, workers: int
) -> None:
    kind, how = options()[case]
    trainer, loader = Trainer(), run.watch(DataLoader(kind(), num_workers=workers, **how), role="train")
    for _epoch in range(2):
        trainer.over(loader)
    check(run, log, trainer)
    assert len(trainer.truth) >= 10


@pytest.mark.matrix("DataLoader", "early break, peek, three epochs", attribution="exact")
@WORKERS
def test_what_was_fetched_and_never_trained_on_is_no_use(run: Run, log: Read, workers: int) -> None:
    trainer, loader = Trainer(), DataLoader(Rows(), batch_size=2, shuffle=True, num_workers=workers)
    run.watch(loader, role="train")
    next(iter(loader))
    for _epoch in range(3):
        for number, batch in enumerate(loader):
            if number == 3:
                break
            trainer.step(batch)
    check(run, log, trainer)


@pytest.mark.matrix("DataLoader", "persistent workers, prefetch_factor=4, early break", attribution="exact")
def test_what_persistent_workers_had_prefetched_at_a_break_is_no_use(run: Run, log: Read) -> None:
    how: dict[str, Any] = {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 4}
    trainer, loader = Trainer(), run.watch(DataLoader(Rows(), batch_size=2, shuffle=True, **how), role="train")
    for _epoch in range(3):
        for number, batch in enumerate(loader):
            trainer.step(batch)
            if number == 2:
                break
    check(run, log, trainer)


@pytest.mark.matrix("DataLoader", "one slow worker", attribution="exact")
@pytest.mark.matrix("DataLoader", "one slow worker, in_order=False", attribution="exact")
@pytest.mark.parametrize("in_order", [True, False])
def test_a_slow_worker_changes_nothing(run: Run, log: Read, in_order: bool) -> None:
    loader = DataLoader(Slow(), batch_size=2, num_workers=2, in_order=in_order)
    trainer = Trainer()
    trainer.over(run.watch(loader, role="train"))
    check(run, log, trainer)
    assert (trainer.truth[0] == [0, 1]) == in_order


@pytest.mark.matrix("DataLoader", "an exception at one sample, the caller goes on", attribution="exact")
@WORKERS
def test_a_batch_that_could_not_be_read_is_no_use_and_the_next_are_right(run: Run, log: Read, workers: int) -> None:
    loader = run.watch(DataLoader(Rows(bad=7), batch_size=2, shuffle=True, num_workers=workers), role="train")
    trainer, batches, failures = Trainer(), iter(loader), 0
    while True:
        try:
            trainer.step(next(batches))
        except StopIteration:
            break
        except OSError:
            failures += 1
    check(run, log, trainer)
    assert (failures, len(trainer.truth)) == (1, 9)


@pytest.mark.matrix("DataLoader", "spawn", attribution="exact")
@pytest.mark.matrix("DataLoader", "forkserver", attribution="exact")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_know_nothing_of_this_process_are_paired(run: Run, log: Read, method: str) -> None:
    how: dict[str, Any] = {"num_workers": 2, "multiprocessing_context": method}
    trainer = Trainer()
    trainer.over(run.watch(DataLoader(Rows(8), batch_size=2, shuffle=True, **how), role="train"))
    check(run, log, trainer)


@pytest.mark.matrix("DataLoader", "list(loader)", attribution="exact")
@WORKERS
def test_batches_that_are_laid_up_first_are_recognised_by_their_memory(run: Run, log: Read, workers: int) -> None:
    loader = DataLoader(Rows(), batch_size=2, shuffle=True, num_workers=workers)
    batches = list(run.watch(loader, role="train"))
    trainer = Trainer()
    trainer.over(reversed(batches[:6]))
    check(run, log, trainer)


def one_ahead(loader: Iterable[Any], copies: bool) -> Iterator[Any]:
    """A prefetcher as for CUDA streams: the next batch is fetched before this one is handed on."""
    held = None
    for features, who in loader:
        here = (features.clone(), who) if copies else (features, who)
        if held is not None:
            yield held
        held = here
    yield held


@pytest.mark.matrix("DataLoader", "prefetcher one batch ahead", attribution="exact")
@WORKERS
def test_a_prefetcher_that_is_one_ahead_is_followed(run: Run, log: Read, workers: int) -> None:
    loader = run.watch(DataLoader(Rows(), batch_size=2, shuffle=True, num_workers=workers), role="train")
    trainer = Trainer()
    trainer.over(one_ahead(loader, copies=False))
    check(run, log, trainer)


@pytest.mark.matrix(
    "DataLoader", "prefetcher that copies, one batch ahead", attribution="fifo", note="a guess, and said"
)
@WORKERS
def test_of_a_prefetcher_that_copies_the_order_is_guessed_and_a_gap_says_so(run: Run, log: Read, workers: int) -> None:
    loader = run.watch(DataLoader(Rows(), batch_size=2, shuffle=True, num_workers=workers), role="train")
    trainer = Trainer()
    trainer.over(one_ahead(loader, copies=True))
    run.close()
    said = log(run.path)
    assert {use.attribution for use in said.uses() if use.status == "applied"} == {"fifo"}
    assert [gap["reason"] for gap in said.kind("gap")] == [
        "updates were given to batches by their order, and some are left"
    ]


@pytest.mark.matrix("DataLoader", "two loaders in one update", attribution="exact")
@WORKERS
def test_both_batches_of_an_update_are_used_by_it(run: Run, log: Read, workers: int) -> None:
    pool = Rows()
    halves = [Subset(pool, range(12)), Subset(pool, range(12, 20))]
    loaders = [
        run.watch(DataLoader(half, batch_size=2, shuffle=True, num_workers=workers), role="train") for half in halves
    ]
    trainer = Trainer()
    for first, second in zip(*loaders, strict=False):
        trainer.step(first, second)
    check(run, log, trainer)
    assert len(trainer.truth) == 4


@pytest.mark.matrix("DataLoader", "a second thread iterates another loader", attribution="exact")
@WORKERS
def test_a_thread_that_iterates_beside_the_training_takes_no_part(run: Run, log: Read, workers: int) -> None:
    trained, looked_at = Rows(), Rows(12)
    loader = run.watch(DataLoader(trained, batch_size=2, shuffle=True, num_workers=workers), role="train")
    other = run.watch(DataLoader(looked_at, batch_size=3), role="validation")
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(len(batch[1]) for _ in range(20) for batch in other))
    trainer = Trainer()
    batches = iter(loader)  # its workers are forked here: a fork beside other threads may wait for ever
    thread.start()
    trainer.over(batches)
    thread.join()
    said = check(run, log, trainer)
    assert sum(seen) == 240
    assert {use.dataset for use in said.uses() if use.status == "applied"} == {"Rows"}


@pytest.mark.matrix("DataLoader", "a thread iterates the loader for the loop", attribution="exact")
@WORKERS
def test_batches_that_a_thread_reads_for_the_loop_are_recognised(run: Run, log: Read, workers: int) -> None:
    loader = run.watch(DataLoader(Rows(), batch_size=2, shuffle=True, num_workers=workers), role="train")
    ready: queue.Queue[Any] = queue.Queue()
    batches = iter(loader)  # its workers are forked here: a fork beside other threads may wait for ever

    def feed() -> None:
        try:
            for batch in batches:
                ready.put(batch)
        finally:
            ready.put(None)

    thread = threading.Thread(target=feed)
    thread.start()
    trainer = Trainer()
    trainer.over(iter(lambda: ready.get(timeout=30), None))
    thread.join()
    check(run, log, trainer)


@pytest.mark.matrix("DataLoader", "batches of a Subset of a ConcatDataset", attribution="exact")
@WORKERS
def test_rows_behind_views_are_those_of_their_roots(run: Run, log: Read, workers: int) -> None:
    first, second = Rows(8), Rows(6)
    run.register(first, name="first")
    run.register(second, name="second")
    view = Subset(ConcatDataset([first, second]), [13, 0, 8, 3, 9])
    trainer = Trainer()
    trainer.over(run.watch(DataLoader(view, batch_size=2, num_workers=workers), role="train"))
    said = check(run, log, trainer, datasets=2)
    assert sorted((u.dataset, u.key) for u in said.uses()) == [
        ("first", 0), ("first", 3), ("second", 0), ("second", 1), ("second", 5),
    ]  # fmt: skip


@pytest.mark.matrix("DataLoader", "new loaders around the same data set", attribution="exact")
@WORKERS
def test_a_loader_that_is_made_anew_each_epoch_is_followed(run: Run, log: Read, workers: int) -> None:
    data = Rows()
    run.watch(DataLoader(data, batch_size=4), role="train")
    trainer = Trainer()
    for seed in range(3):
        shuffle = torch.Generator().manual_seed(seed)
        trainer.over(DataLoader(data, batch_size=5, shuffle=True, generator=shuffle, num_workers=workers))
    check(run, log, trainer)


@pytest.mark.matrix("DataLoader", "DistributedSampler: padded samples are used twice", attribution="exact")
@WORKERS
def test_a_padded_sample_is_used_as_often_as_it_is_trained_on(run: Run, log: Read, workers: int) -> None:
    data = Rows(11)
    sampler: Any = DistributedSampler(data, num_replicas=4, rank=0, shuffle=False)
    other: Any = DistributedSampler(data, num_replicas=4, rank=3, shuffle=False)
    trainer = Trainer()
    for share in (sampler, other):
        trainer.over(run.watch(DataLoader(data, batch_size=2, sampler=share, num_workers=workers), role="train"))
    said = check(run, log, trainer)
    assert sum(use.key == 0 for use in said.uses()) == 2  # 11 rows, padded to 12 by the first


# -- what a collate function does ------------------------------------------------------------------------------------


def without_threes(items: list[Any]) -> Any:
    return default_collate([(features, who) for features, who in items if who % 3])


def in_one_row(items: list[Any]) -> Any:
    features, who = default_collate(items)
    return features.mean(0, keepdim=True), who.reshape(1, -1)


def mixed_up(items: list[Any]) -> Any:
    features, who = default_collate(items)
    return 0.7 * features + 0.3 * features.roll(1, 0), who


@pytest.mark.matrix("DataLoader", "collate_fn drops samples", note="said to be among those drawn")
@WORKERS
def test_a_batch_that_lost_samples_is_recorded_as_holding_at_most_those_drawn(
    run: Run, log: Read, workers: int
) -> None:
    loader = DataLoader(Rows(12), batch_size=3, shuffle=True, num_workers=workers, collate_fn=without_threes)
    run.watch(loader, role="train")
    trainer = Trainer()
    with pytest.warns(RuntimeWarning, match="drawn as 3 samples and holds another number") as warned:
        trainer.over(loader)
    assert len(warned) == 1
    run.close()
    uses = log(run.path).uses()
    for step, rows in enumerate(trainer.truth, 1):
        mine = [use for use in uses if use.step == step]
        assert {use.attribution for use in mine} == {"exact" if len(rows) == 3 else "among"}
        assert set(rows) <= {use.key for use in mine}
    assert any(len(rows) < 3 for rows in trainer.truth)


@pytest.mark.matrix("DataLoader", "collate_fn lays samples together", note="said to be among those drawn, unless whole")
@pytest.mark.parametrize("whole", [False, True])
def test_a_packed_batch_is_marked_unless_it_is_said_to_be_whole(run: Run, log: Read, whole: bool) -> None:
    loader = run.watch(DataLoader(Rows(12), batch_size=3, collate_fn=in_one_row), role="train", whole=whole)
    trainer = Trainer()
    if whole:
        trainer.over(loader)
    else:
        with pytest.warns(RuntimeWarning, match="whole=True"):
            trainer.over(loader)
    check(run, log, trainer, "exact" if whole else "among")


@pytest.mark.matrix("DataLoader", "collate_fn mixes samples (mixup)", attribution="exact", note="weights are not known")
@WORKERS
def test_mixed_samples_all_take_part(run: Run, log: Read, workers: int) -> None:
    loader = DataLoader(Rows(), batch_size=4, shuffle=True, num_workers=workers, collate_fn=mixed_up)
    trainer = Trainer()
    trainer.over(run.watch(loader, role="train"))
    check(run, log, trainer)


class Substituting(Rows):
    """Answers with the next sample where one cannot be read."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return super().__getitem__(index + 1 if index == 7 else index)


@pytest.mark.matrix(
    "DataLoader", "a data set that substitutes samples", note="not seen: recorded as what was asked for"
)
@WORKERS
def test_a_substituted_sample_is_recorded_as_the_one_that_was_asked_for(run: Run, log: Read, workers: int) -> None:
    trainer = Trainer()
    trainer.over(run.watch(DataLoader(Substituting(), batch_size=4, num_workers=workers), role="train"))
    run.close()
    said = updates(log(run.path), "exact")
    assert said[1] == [4, 5, 6, 7]
    assert trainer.truth[1] == [4, 5, 6, 8]
    assert [rows for step, rows in enumerate(said) if step != 1] == trainer.truth[:1] + trainer.truth[2:]
