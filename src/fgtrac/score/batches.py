"""The rows of a data set in order, batch by batch, without a loader: iterating one would draw random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, default_collate

from fgtrac.errors import ScoreError

Collate = Callable[[list[Any]], Any]


def read_batches(
    data: Any, batch_size: int | None = None, collate: Collate | None = None, start: int = 0
) -> Iterator[Any]:
    """Batches of the rows start, start + 1, ... of `data`; the last one may be smaller.

    `data` is a map-style data set, or a loader over one: then its data set is read in row order, whatever its sampler,
    with its collate function and its batch size where none is given (256 otherwise). A TensorDataset, or a Subset of
    one, is indexed as a whole. Raises ScoreError, the caller's fault, where rows have no identity (an iterable-style
    data set, a loader that does not batch); ValueError for a batch size or a start that make no sense.
    """
    if isinstance(data, DataLoader):
        _refuse_unbatched(data)
        batch_size = data.batch_size if batch_size is None else batch_size
        collate = data.collate_fn if collate is None else collate
        data = data.dataset
    rows = count_rows(data)
    size = 256 if batch_size is None else batch_size
    if size < 1 or not 0 <= start <= rows:
        raise ValueError(f"batches of {size} rows from row {start} of {rows}")
    return _batches(data, rows, size, collate or default_collate, start)


def count_rows(data: Any) -> int:
    """The number of rows. ScoreError where they cannot be named by a number."""
    if isinstance(data, DataLoader):
        data = data.dataset
    if isinstance(data, IterableDataset) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise ScoreError(
            f"{type(data).__name__} is read as a stream, and its rows are without identity; "
            "give a map-style data set (__getitem__ and __len__)"
        )
    return len(data)


def _refuse_unbatched(loader: DataLoader[Any]) -> None:
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        raise ScoreError(
            "this loader gives out rows without identity (an iterable-style data set, or batch_size=None); "
            "give a map-style data set (__getitem__ and __len__)"
        )


def _batches(data: Any, rows: int, size: int, collate: Collate, start: int) -> Iterator[Any]:
    tensors, index = _as_tensors(data) if collate is default_collate else (None, None)
    for begin in range(start, rows, size):
        stop = min(begin + size, rows)
        if tensors is not None:
            which = slice(begin, stop) if index is None else index[begin:stop]
            yield [tensor[which] for tensor in tensors]
        elif hasattr(data, "__getitems__"):
            yield collate(data.__getitems__(list(range(begin, stop))))
        else:
            yield collate([data[row] for row in range(begin, stop)])


def _as_tensors(data: Any) -> tuple[tuple[torch.Tensor, ...] | None, torch.Tensor | None]:
    """A TensorDataset's tensors, and which of their rows a Subset takes. Subclasses may do more, and are left alone."""
    index: np.ndarray[Any, np.dtype[np.int64]] | None = None
    while type(data) is Subset:
        inner = np.asarray(data.indices, dtype=np.int64)
        index = inner if index is None else inner[index]
        data = data.dataset
    if type(data) is not TensorDataset:
        return None, None
    return data.tensors, None if index is None else torch.from_numpy(index)
