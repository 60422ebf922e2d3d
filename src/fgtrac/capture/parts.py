"""Parts of batches: which of a batch's rows a model was given, and what is then known of an update.

A tensor shows some rows of a delivered one where its strides and its place say so: a slice of the leading dimension,
and neither a slice of time nor another order of dimensions. Of copies, such as `x[rows]`, only a count is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.capture.batch import Batch
from fgtrac.events.schema import ATTRIBUTION

AMONG, EXACT = ATTRIBUTION["among"], ATTRIBUTION["exact"]
Rows = NDArray[np.bool_]  # (n,) which of the n rows of a batch
Seen = dict[Batch, Rows | None]  # batches, and which of their rows; None is all of them
MOST_PLACES = 1 << 20  # that are looked at to tell the rows of one tensor


class Part(int):
    """How surely a batch is in an update, `among`, as far as these `rows` are, and how surely if these are all."""

    rows: Rows
    sure: int

    def __new__(cls, rows: Rows, sure: int) -> Part:
        made = super().__new__(cls, AMONG)
        made.rows, made.sure = rows, sure
        return made


def rows_shown(tensor: torch.Tensor, leaf: torch.Tensor, drawn: int) -> Rows | None:
    """Which rows of `leaf`, a tensor of a batch of `drawn` samples, are in `tensor`, which shows its memory; None where
    all are. Rows are along the leading dimension, or along the second where only that is as long as the batch."""
    if tensor.shape == leaf.shape and tensor.stride() == leaf.stride():
        return None
    if not leaf.dim():
        return None
    along = int(leaf.dim() > 1 and leaf.shape[0] != drawn == leaf.shape[1])
    count, step = leaf.shape[along], leaf.stride(along)
    if count < 2 or not step:
        return None
    shown = np.zeros(count, dtype=np.bool_)
    if tensor.dtype != leaf.dtype:
        return None if tensor.numel() * tensor.element_size() >= leaf.numel() * leaf.element_size() else shown
    if tensor.numel() == leaf.numel() and 0 not in tensor.stride():
        return None
    first = int(tensor.storage_offset() - leaf.storage_offset())
    places, within = np.array([first]), first % step
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        within += stride * (size - 1)
        if within >= step and stride:  # it leaves the row; what does not says nothing
            if len(places) * size > MOST_PLACES:
                return shown
            places = (places[:, None] + stride * np.arange(size)).reshape(-1)
    shown[places // step % count] = True
    return None if shown.all() else shown


def add(seen: Seen, batch: Batch, rows: Rows | None) -> None:
    """These rows of a batch too."""
    if batch in seen:
        before = seen[batch]
        rows = None if before is None or rows is None else _both(before, rows)
    seen[batch] = rows


def _both(before: Rows, rows: Rows) -> Rows | None:
    together = before | rows if before.shape == rows.shape else before
    return None if together.all() else together


def rows_copied(calls: Iterable[Sequence[torch.Size]], batch: Batch) -> Rows | None:
    """As many of a batch's rows as models were given, in `calls` of tensors of these shapes, in what may be copies of
    rows of its first tensor; None where these are enough for all, or nothing is a copy of rows."""
    leaf = None if batch.first is None else batch.first()
    if leaf is None or not leaf.dim() or leaf.shape[0] != len(batch.positions) or batch.hops is not None:
        return None
    rows = [[shape[0] for shape in call if len(shape) and shape[1:] == leaf.shape[1:]] for call in calls]
    count = sum(max(call) for call in rows if call)
    return np.arange(leaf.shape[0]) < count if 0 < count < leaf.shape[0] else None


def together(before: int | None, now: int) -> int:
    """How surely a batch is in an update to which it contributed `before`, and contributes `now`."""
    if before is None or (before == AMONG and now == EXACT):
        return now
    if not (isinstance(before, Part) and isinstance(now, Part)):
        return before
    sure = max(before.sure, now.sure)
    if sure == EXACT:
        rows = _both(before.rows, now.rows)
    else:  # nobody can tell which: other ones, if that may be
        count = np.count_nonzero(before.rows) + np.count_nonzero(now.rows)
        rows = np.arange(len(before.rows)) < count if count < len(before.rows) else None
    return sure if rows is None else Part(rows, sure)
