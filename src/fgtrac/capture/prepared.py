"""Loaders that Accelerate has prepared: they read the watched one ahead, and a batch counts as delivered when the loop
gets it, on the device where it then lies.

A registry-scoped patch of their `__iter__`, made as soon as one is watched; Accelerate itself is never imported. Where
one process reads for all of them and cuts what it has read into slices, the rows travel in the batch.
"""

from __future__ import annotations

import copy
import functools
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import numpy as np
import torch

from fgtrac.capture.hops import Hops
from fgtrac.capture.loader import Pairing, awaiting
from fgtrac.capture.sampler import Order
from fgtrac.capture.tensors import tensors_in
from fgtrac.capture.watches import find_watch

KINDS = ("DataLoaderShard", "DataLoaderDispatcher", "SkipDataLoader")
ROWS = "fgtrac_rows"  # in a batch on its way from the process that read it
LOST = -1  # in the place of a row: nobody can tell which it is
_END = object()
_KNOWN = "Accelerate 1.1 to 1.15 are known to read one batch ahead"
_NOT_SLICED = (
    "have each process read its own (dispatch_batches=False), or give dicts, lists or tuples with a row of each sample"
)
_followed: dict[type, Callable[[Any], Iterator[Any]]] = {}


def innermost(loader: Any) -> Any:
    """The DataLoader that a loader prepared by Accelerate reads; any other is what it is. From now on the prepared ones
    around watched data are followed."""
    module = sys.modules.get("accelerate.data_loader")
    for kind in [k for name in KINDS if (k := getattr(module, name, None)) is not None and k not in _followed]:
        _followed[kind] = kind.__iter__
        kind.__iter__ = _follow(kind.__iter__)
    prepared: Any = loader
    return prepared.base_dataloader if isinstance(loader, tuple(_followed)) else loader


def _follow(original: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    @functools.wraps(original)
    def iterate(self: Any) -> Iterator[Any]:
        batches = original(self)
        return batches if find_watch(self.base_dataloader) is None else _handed_over(self, batches)

    return iterate


def _handed_over(loader: Any, batches: Iterator[Any]) -> Iterator[Any]:
    reading = Reading(loader)
    with awaiting(loader.base_dataloader, reading):  # its iterator begins with the first batch
        batch = next(batches, _END)
    while batch is not _END:
        yield reading.hand_over(batch)
        batch = next(batches, _END)
    reading.end()


class Reading:
    """One pass of a prepared loader: what the watched one inside it has delivered, and the loop has not got yet."""

    def __init__(self, loader: Any) -> None:
        self._skipped = int(getattr(loader, "skip_batches", 0))
        self._held: deque[tuple[array[int], Hops | None]] = deque()
        self._pairing: Pairing | None = None
        state = getattr(loader, "state", None)  # of a dispatcher only
        self._slices = state is not None and state.num_processes > 1
        self.order = Order(f"{type(loader).__module__}.{type(loader).__qualname__}") if self._slices else None

    def begin(self, pairing: Pairing) -> None:
        """The watched loader's iterator was made."""
        self._pairing = pairing

    def hold(self, positions: array[int], data: Any, hops: Hops | None) -> Any:
        """The watched loader delivered a batch; what the prepared one gets of it."""
        if self._slices:
            is_stream = self._pairing is not None and self._pairing.watch.stream is not None
            return _with_rows(data, positions, are_known=not is_stream)
        self._held.append((positions, hops))
        return data

    def hand_over(self, batch: Any) -> Any:
        """The loop receives a batch; what it gets."""
        pairing = self._pairing
        if pairing is None or not pairing.watch.is_here:
            return batch
        if self._slices:
            return self._hand_over_slice(pairing, batch)
        while self._skipped and self._held:
            self._skipped -= 1
            self._held.popleft()  # read, and thrown away by the prepared loader
        self._skipped = 0
        if not 1 <= len(self._held) <= 2:  # it reads one ahead, or none
            pairing.watch.unrecorded(f"Accelerate's loader, which was {len(self._held)} batches ahead,", _KNOWN)
            self._held.clear()
            return batch
        positions, hops = self._held.popleft()
        return pairing.receive(positions, batch, hops)

    def end(self) -> None:
        """The prepared loader has no more batches."""
        if self._pairing is not None and self._pairing.watch.active:
            self._pairing.watch.grounding.exhausted(self._pairing.iteration)

    def _hand_over_slice(self, pairing: Pairing, batch: Any) -> Any:
        batch, rows = _without_rows(batch)
        if rows is None or (rows == LOST).any():
            what = "a stream" if pairing.watch.stream is not None else "batches whose rows nobody can tell apart"
            pairing.watch.unrecorded(f"Accelerate's dispatcher, in several processes over {what},", _NOT_SLICED)
            return batch
        return pairing.receive(array("I", rows.astype(np.uint32).tobytes()), batch, None)


def _with_rows(data: Any, positions: array[int], *, are_known: bool) -> Any:
    """A batch and its rows, (n,) int64, in a copy of its container; as it is where it is none. The rows are lost where
    the batch has another number, or the positions say nothing in another process."""
    leaves = tensors_in(data)
    count = len(leaves[0]) if leaves and leaves[0].dim() else -1
    drawn = np.asarray(positions, dtype=np.int64)
    rows = torch.from_numpy(drawn if are_known and count == len(drawn) else np.full(max(count, 1), LOST))
    if isinstance(data, MutableMapping):
        data = copy.copy(data)
        data[ROWS] = rows
        return data
    return type(data)((*data, rows)) if type(data) in (list, tuple) else data


def _without_rows(batch: Any) -> tuple[Any, Any]:
    """The batch without its rows, and these: (n,) int64, or None where there are none."""
    if isinstance(batch, MutableMapping):
        rows = batch.pop(ROWS, None)
        return batch, None if rows is None else rows.cpu().numpy()
    if type(batch) in (list, tuple) and batch and isinstance(batch[-1], torch.Tensor):
        return batch[:-1], batch[-1].cpu().numpy()
    return batch, None
