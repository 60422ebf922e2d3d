"""Rows in order without a loader's iterator, and refused where they have no identity."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from fgtrac.errors import ScoreError
from fgtrac.score.batches import count_rows, read_batches

X, Y = torch.arange(20.0).reshape(10, 2), torch.arange(10)


class Plain(Dataset):
    """One row at a time."""

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return X[row], Y[row]

    def __len__(self) -> int:
        return len(X)


class ManyAtOnce(Plain):
    def __getitems__(self, rows: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [self[row] for row in rows]


class Doubled(TensorDataset):
    def __getitem__(self, row):
        return tuple(2 * tensor for tensor in super().__getitem__(row))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize("data", [TensorDataset(X, Y), Plain(), ManyAtOnce(), list(zip(X, Y, strict=True))])
@pytest.mark.parametrize("start", [0, 4, 10])
def test_rows_come_in_order_from_where_one_starts(data, start):
    batches = list(read_batches(data, 4, start=start))
    assert [len(y) for _, y in batches] == [min(4, 10 - first) for first in range(start, 10, 4)]
    assert torch.cat([y for _, y in batches] or [Y[:0]]).equal(Y[start:])
    assert torch.cat([x for x, _ in batches] or [X[:0]]).equal(X[start:])


def test_subsets_of_subsets_are_indexed_as_a_whole_and_by_row_alike():
    rows, among = [9, 3, 3, 0, 7], [4, 0, 2]
    for root in (TensorDataset(X, Y), Plain(), ManyAtOnce()):
        batches = list(read_batches(Subset(Subset(root, rows), among), 2))
        assert torch.cat([y for _, y in batches]).tolist() == [7, 9, 3]
        assert torch.cat([x for x, _ in batches]).equal(X[[7, 9, 3]])


def test_a_subclass_that_does_more_is_not_bypassed():
    assert next(read_batches(Doubled(X, Y), 3))[1].tolist() == [0, 2, 4]


def test_batches_are_what_a_loader_would_give():
    for data in (TensorDataset(X, Y), Plain()):
        for ours, theirs in zip(read_batches(data, 4), DataLoader(data, batch_size=4), strict=True):
            assert type(ours) is type(theirs)
            assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))


def test_a_shuffled_loader_is_read_in_row_order_with_its_own_collate_and_size():
    loader = DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True, collate_fn=lambda rows: [y for _, y in rows])
    before = torch.get_rng_state()
    assert [len(batch) for batch in read_batches(loader)] == [3, 3, 3, 1]
    assert [int(y) for batch in read_batches(loader, 5) for y in batch] == list(range(10))
    assert torch.get_rng_state().equal(before)


def test_a_loader_with_batches_of_its_own_making_is_read_in_row_order():
    loader = DataLoader(TensorDataset(X, Y), batch_sampler=[[5, 1], [2]])
    assert [len(y) for _, y in read_batches(loader, 4)] == [4, 4, 2]


@pytest.mark.parametrize(
    "data", [Stream(), DataLoader(Stream()), iter([1, 2]), DataLoader(Plain(), batch_size=None), {1, 2}]
)
def test_rows_without_identity_are_refused(data):
    with pytest.raises(ScoreError, match=r"without identity.*map-style"):
        read_batches(data, 4)


@pytest.mark.parametrize(("size", "start"), [(0, 0), (-1, 0), (2, 11), (2, -1)])
def test_batches_that_make_no_sense_are_refused(size, start):
    with pytest.raises(ValueError, match="rows from row"):
        read_batches(Plain(), size, start=start)


def test_rows_are_counted_through_a_loader():
    assert count_rows(DataLoader(Plain(), batch_size=3)) == count_rows(Plain()) == 10
