"""Whose memory a tensor is: the batches that watched loaders delivered, found by where their values lie.

As long as the values are those that were delivered: what is written to in place since, as a buffer that the next batch
is copied into, is no batch any more. A loop that scales its batches in place is attributed in order.
"""

from __future__ import annotations

import weakref
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import torch

from fgtrac.capture.batch import Batch, Iteration
from fgtrac.capture.parts import Rows, Seen, add, rows_shown
from fgtrac.capture.tensors import address_of, tensors_in

_Known = tuple[weakref.ref[torch.Tensor], Batch | None, int]  # and the version in which it was delivered
LEAVES = 16  # tensors of one batch that are remembered


class BatchMemory:
    """Where the tensors of delivered batches lie, as long as anybody holds them."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._limit = 4 * LEAVES
        self.has_graphs = False  # of full batches
        self._open: dict[Batch, dict[int, _Known]] = {}  # full batches whose loop's body has not ended

    def take(self, batch: Batch, data: Any, outstanding: Container[Batch | None], others: bool) -> None:
        """Remember the first tensors of a batch; with `others` some are `outstanding` beside it."""
        leaves, hops = tensors_in(data), batch.hops
        if len(leaves) > LEAVES:
            del leaves[LEAVES:]
        if hops is not None and hops.graph == "whole":
            self.has_graphs = True  # and its tensors, which are always held, say nothing of what the loop holds
            self._open = {b: known for b, known in self._open.items() if b.iteration.loader != batch.iteration.loader}
            kept = [leaf for leaf in leaves if not leaf.is_inference()]  # which has no version
            self._open[batch] = {address_of(leaf): (weakref.ref(leaf), batch, leaf._version) for leaf in kept}
        else:
            batch.first = weakref.ref(leaves[0]) if leaves else None
            if hops is None and self.has_graphs:
                self.forget_graphs(outstanding)
        for leaf in leaves:
            try:
                address, version = leaf.data_ptr(), leaf._version  # `address_of`, without its call
            except RuntimeError:
                address = version = 0  # also one made in inference mode, which cannot be trained on
            known = self._known.get(address)
            if (
                known is not None
                and known[0]() is not None
                and self._is_of_another(known[1], batch, outstanding, others)
            ):
                self._known[address] = (known[0], None, version)  # several batches show the same memory of the data set
            elif address:
                self._known[address] = (weakref.ref(leaf), batch, version)
        if len(self._known) > self._limit:
            self._known = {k: v for k, v in self._known.items() if v[0]() is not None}
            self._limit = 2 * len(self._known) + 4 * LEAVES

    @staticmethod
    def _is_of_another(known: Batch | None, batch: Batch, outstanding: Container[Batch | None], others: bool) -> bool:
        return known is not batch and (known in outstanding or (known is None and others))

    def batches_of(self, tensors: Sequence[torch.Tensor]) -> Seen:
        """The batches whose memory these tensors, all of one call, show."""
        batches: Seen = {}
        views: list[tuple[Batch, torch.Tensor, Rows | None]] = []
        for tensor in tensors:
            try:
                found, version = self._known.get(tensor.data_ptr()), tensor._version
            except RuntimeError:
                continue  # it has no memory, or is of inference mode
            leaf = None if found is None else found[0]()
            if leaf is None and tensor._is_view():
                found, leaf = self._behind(tensor)
            if found is None or leaf is None or found[1] is None or found[2] != version or leaf._version != version:
                continue
            batches[found[1]] = None
            if leaf is not tensor and found[1].hops is None:
                views.append((found[1], leaf, rows_shown(tensor, leaf, len(found[1].positions))))
        return _with_parts(batches, views, tensors) if views else batches

    def holds_another(self, than: Container[Batch], waiting: tuple[Container[Batch], ...]) -> bool:
        """Whether somebody holds a batch to train on that waits no more."""
        gone, found = [], False
        for address, (leaf, batch, _version) in self._known.items():
            if leaf() is None:
                gone.append(address)
            elif batch is None or batch in than or batch.is_whole or not batch.iteration.trains:
                continue
            elif not any(batch in queue for queue in waiting):
                found = True
                break
        for address in gone:
            del self._known[address]
        return found

    def _behind(self, view: torch.Tensor) -> tuple[_Known | None, torch.Tensor | None]:
        """The delivered tensor that this is a view of, and whose it is."""
        whole: Any = view._base
        found = self._known.get(address_of(whole))
        return (found, whole) if found is not None and found[0]() is whole else (None, None)

    def forget_graphs(self, outstanding: Container[Batch | None]) -> None:
        """A batch that may go into the model with a graph's memory waits: of the full batches only those that are
        `outstanding` too are still known by it."""
        graphs = [(address, b) for address, (_, b, _version) in self._known.items() if b is not None and b.is_whole]
        for address, batch in graphs:
            if batch not in outstanding:
                del self._known[address]
        self.has_graphs = any(batch in outstanding for _, batch in graphs)

    def end(self, iteration: Iteration) -> None:
        """The body of a full batch's loop has ended: its graph's memory is that of the batch around it, if any."""
        for batch in [b for b in self._open if b.iteration is iteration]:
            for address in self._open.pop(batch):
                around = [b for b, known in self._open.items() if address in known]
                if around:
                    ref, only, version = self._open[around[0]][address]
                    self._known[address] = ref, only if len(around) == 1 else None, version
                    self.has_graphs = True
                elif (known := self._known.get(address)) is not None and known[1] in (batch, None):
                    del self._known[address]

    def clear(self) -> None:
        """Forget all of it."""
        self._known.clear()
        self._open.clear()


def _with_parts(
    batches: Seen, views: list[tuple[Batch, torch.Tensor, Rows | None]], tensors: Sequence[torch.Tensor]
) -> Seen:
    """Batches of which some tensor shows some rows only, and no other tensor the rest of that one."""
    shown: dict[int, Seen] = {}
    for batch, leaf, rows in views:
        whole = any(tensor is leaf for tensor in tensors)
        add(shown.setdefault(id(leaf), {}), batch, None if whole else rows)
    for seen in shown.values():
        for batch, rows in seen.items():
            before = batches[batch]
            if rows is not None and (before is None or np.count_nonzero(rows) < np.count_nonzero(before)):
                batches[batch] = rows
    return batches
