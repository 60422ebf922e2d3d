"""Pairing: whatever the loader does, each delivered batch is filed under the rows that are in it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from fgtrac.api.run import Run, start_run
from fgtrac.capture.loader import as_positions
from fgtrac.capture.watches import find_watch
from fgtrac.errors import CaptureError

WORKERS = pytest.mark.parametrize("workers", [0, 2])
Read = Callable[[Path], Any]


class Numbers(Dataset[Any]):
    """Item i is i; item `bad` cannot be read."""

    def __init__(self, rows: int, bad: int | None = None) -> None:
        self.rows = rows
        self.bad = bad

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> int:
        if index == self.bad:
            raise OSError(f"row {index} is unreadable")
        return index


class Bulk(Numbers):
    """Fetched a batch at a time."""

    def __getitems__(self, indices: list[int]) -> list[int]:
        return list(indices)


class Uneven:
    """A batch sampler with batches of 1, 2, 3, ... rows from the end."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[list[int]]:
        left, size = list(range(self.rows)), 1
        while left:
            yield [left.pop() for _ in range(min(size, len(left)))]
            size += 1


def rows_in(batch: Any) -> list[int]:
    return sorted(torch.as_tensor(batch).reshape(-1).tolist())


def delivered(log: Any) -> list[list[int]]:
    """The rows of each delivered batch, as the log says it, in order of epoch and batch."""
    return [keys for _, _, keys in log.batches("unapplied").values()]


@WORKERS
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 4},
        {"batch_size": 4, "shuffle": True},
        {"batch_size": 4, "drop_last": True},
        {"batch_size": None, "sampler": [5, 3, 1]},
        {"batch_sampler": Uneven(10)},
        {"batch_sampler": [[0, 0, 1], [-1]]},
        {"batch_size": 2, "sampler": torch.tensor([4, 4, 2])},
        {"batch_size": 3, "collate_fn": lambda items: {"rows": torch.tensor(items)}["rows"]},
    ],
    ids=[
        "in order",
        "shuffled",
        "last dropped",
        "no batches",
        "uneven",
        "repeated and negative",
        "tensors",
        "collated",
    ],
)
def test_batches_are_filed_under_the_rows_that_are_in_them(
    run: Run, log: Read, workers: int, options: dict[str, Any]
) -> None:
    loader = run.watch(DataLoader(Numbers(10), num_workers=workers, **options))
    truth = [rows_in(batch) for _ in range(2) for batch in loader]
    run.close()
    assert delivered(log(run.path)) == [sorted(row % 10 for row in rows) for rows in truth]
    assert len(truth) >= 4


@WORKERS
def test_a_data_set_that_fetches_whole_batches_is_paired(run: Run, log: Read, workers: int) -> None:
    truth = [rows_in(b) for b in run.watch(DataLoader(Bulk(9), batch_size=4, shuffle=True, num_workers=workers))]
    run.close()
    assert delivered(log(run.path)) == truth


@pytest.mark.parametrize("persistent", [False, True])
def test_batches_under_way_at_an_early_break_are_not_counted(run: Run, log: Read, persistent: bool) -> None:
    loader = DataLoader(
        Numbers(40), batch_size=4, shuffle=True, num_workers=2, persistent_workers=persistent, prefetch_factor=3
    )
    run.watch(loader)
    truth = []
    for _ in range(3):
        for number, batch in enumerate(loader):
            truth.append(rows_in(batch))
            if number == 2:
                break
    run.close()
    assert delivered(log(run.path)) == truth
    assert len(truth) == 9


def test_workers_that_answer_out_of_order_are_paired_by_task(run: Run, log: Read) -> None:
    loader = run.watch(DataLoader(Numbers(24), batch_size=3, num_workers=2, in_order=False))
    truth = [rows_in(batch) for batch in loader]
    run.close()
    assert delivered(log(run.path)) == truth
    assert sorted(row for batch in truth for row in batch) == list(range(24))


@WORKERS
def test_a_batch_that_could_not_be_read_is_not_counted_and_the_next_are_right(
    run: Run, log: Read, workers: int
) -> None:
    batches = iter(run.watch(DataLoader(Numbers(12, bad=5), batch_size=2, num_workers=workers)))
    truth = []
    failures = 0
    while True:
        try:
            truth.append(rows_in(next(batches)))
        except StopIteration:
            break
        except OSError:
            failures += 1
    run.close()
    assert failures == 1
    assert truth == [[0, 1], [2, 3], [6, 7], [8, 9], [10, 11]]
    assert delivered(log(run.path)) == truth


def test_a_new_loader_around_a_watched_data_set_is_watched_too(run: Run, log: Read) -> None:
    data = Numbers(6)
    run.watch(DataLoader(data, batch_size=3))
    truth = [rows_in(batch) for batch in DataLoader(data, batch_size=2)]
    run.close()
    assert delivered(log(run.path)) == truth


def test_a_loader_watched_twice_is_counted_once(run: Run, log: Read) -> None:
    loader = DataLoader(Numbers(6), batch_size=3)
    assert run.watch(loader, role="train") is loader
    assert run.watch(loader, role="validation") is loader
    truth = [rows_in(batch) for batch in loader]
    run.close()
    said = log(run.path)
    assert delivered(said) == truth
    assert {e["loader"] for e in said.kind("use")} == {1}
    assert [e["role"] for e in said.kind("roles")] == ["train", "validation"]


def test_a_role_that_samples_have_is_written_once_however_often_it_is_given(run: Run, log: Read) -> None:
    data = Numbers(6)
    loader = DataLoader(data, batch_size=3)
    for _epoch in range(3):
        run.watch(loader, role="train")
    run.register(Subset(data, [0, 1]), role="test")
    run.register(data, role="test")
    run.watch(DataLoader(data, batch_size=2), role="train")
    run.close()
    said = log(run.path)
    roles = [(e["role"], sorted(said.keys(e["block"], e["ordinals"]))) for e in said.kind("roles")]
    assert roles == [("train", [0, 1, 2, 3, 4, 5]), ("test", [0, 1]), ("test", [2, 3, 4, 5])]


def test_a_loader_that_nobody_watches_leaves_no_trace(run: Run, log: Read) -> None:
    run.register(Numbers(4))
    assert len(list(DataLoader(Numbers(6), batch_size=3))) == 2
    run.close()
    assert log(run.path).kind("use") == []


def test_a_closed_run_no_longer_hears_of_a_loader(run: Run, log: Read) -> None:
    loader = run.watch(DataLoader(Numbers(6), batch_size=2))
    batches = iter(loader)
    next(batches)
    run.close()
    assert len(list(batches)) == 2
    assert len(list(loader)) == 3
    assert delivered(log(run.path)) == [[0, 1]]


def test_what_is_no_loader_is_refused(run: Run) -> None:
    with pytest.raises(TypeError, match="not list"):
        run.watch([1, 2])  # type: ignore[arg-type]


def test_a_sampler_that_draws_no_row_of_the_data_set_is_refused_by_value() -> None:
    for drawn, words in (([0, 7], r"row \[0, 7\] of a data set of 5"), ("cat", "'cat', which is no row"), (-6, "-6")):
        with pytest.raises(CaptureError, match=words):
            as_positions(drawn, 5)
    assert as_positions([], 5).tolist() == []
    assert as_positions([-1, 0], 5).tolist() == [4, 0]


def test_a_forked_child_neither_records_nor_seals(run: Run, log: Read) -> None:
    loader = run.watch(DataLoader(Numbers(6), batch_size=2))
    first = iter(loader)
    next(first)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run.log(loss=1.0)
        except CaptureError:
            list(loader)
            run.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    run.close()
    said = log(run.path)
    assert delivered(said) == [[0, 1]]
    assert Counter(e["kind"] for e in said.events)["end"] == 1


def test_another_open_run_does_not_take_a_loader_or_a_data_set_away(run: Run, tmp_path: Path) -> None:
    loader = run.watch(DataLoader(Numbers(6), batch_size=2))
    other = start_run(tmp_path / "other", key=tmp_path / "key.pem")
    for theirs in (loader, DataLoader(loader.dataset, batch_size=3)):
        for _again in range(2):
            with pytest.raises(CaptureError, match=r"is watched by the run run\.trace, which is still open"):
                other.watch(theirs)
    run.close()
    assert other.watch(loader) is loader
    list(loader)
    other.close()


@pytest.mark.parametrize("data", [Numbers(6), list(range(6))], ids=["data set", "list"])
def test_an_iterator_from_before_the_watch_is_said_to_be_unrecorded(run: Run, log: Read, data: Any) -> None:
    loader = DataLoader(data, batch_size=2)
    before, elsewhere = iter(loader), iter(DataLoader(Numbers(4)))
    next(before)
    run.watch(loader)
    list(elsewhere)
    with pytest.warns(RuntimeWarning, match=r"begun before watch\(\), or over a copy") as warned:
        assert len(list(before)) == 2
    assert len(warned) == 1
    assert len(list(loader)) == 3
    run.close()
    said = log(run.path)
    assert [gap["reason"] for gap in said.kind("gap")] == [
        "an iterator that was begun before watch(), or over a copy of the watched loader, delivers batches of watched "
        "data, and they are not recorded"
    ]
    assert len({use.batch for use in said.uses()}) == 3


def test_an_iterator_of_a_run_that_closed_is_said_to_be_unrecorded_by_the_next(run: Run, tmp_path: Path) -> None:
    loader = run.watch(DataLoader(Numbers(6), batch_size=2))
    before = iter(loader)
    next(before)
    run.close()
    next(before)  # nobody watches now
    with start_run(tmp_path / "next", key=tmp_path / "key.pem", strict=True) as strict:
        strict.watch(loader)
        with pytest.raises(CaptureError, match=r"begin the loop after watch\(\)"):
            next(before)


@WORKERS
def test_an_opener_gives_the_loop_what_it_makes_of_each_delivered_batch(run: Run, log: Read, workers: int) -> None:
    loader = run.watch(DataLoader(Numbers(6), batch_size=2, num_workers=workers))
    watch = find_watch(loader)
    assert watch is not None
    watch.opener = lambda batch, data: {"rows": data, "drawn": batch.positions.tolist()}
    got = [(rows_in(opened["rows"]), opened["drawn"]) for opened in loader]
    run.close()
    assert got == [([0, 1], [0, 1]), ([2, 3], [2, 3]), ([4, 5], [4, 5])]
    assert delivered(log(run.path)) == [rows for rows, _ in got]
