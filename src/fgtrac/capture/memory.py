"""Whose memory a tensor is: the batches that watched loaders delivered, found by where their values lie."""

from __future__ import annotations

import weakref
from collections.abc import Container, Iterable
from typing import Any

import torch

from fgtrac.capture.batch import Batch, Iteration
from fgtrac.capture.tensors import address_of, tensors_in

_Known = tuple[weakref.ref[torch.Tensor], Batch | None]
LEAVES = 16  # tensors of one batch that are remembered


class BatchMemory:
    """Where the tensors of delivered batches lie, as long as anybody holds them."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self.parts: dict[Batch, tuple[int, int]] = {}  # place and rows of what was looked up last, if no whole batch
        self._limit = 4 * LEAVES
        self.has_graphs = False  # of full batches
        self._open: dict[
            Batch, dict[int, weakref.ref[torch.Tensor]]
        ] = {}  # full batches whose loop's body has not ended

    def take(self, batch: Batch, data: Any, outstanding: Container[Batch | None], others: bool) -> None:
        """Remember the first tensors of a batch; with `others` some are `outstanding` beside it."""
        leaves, hops = tensors_in(data), batch.hops
        if len(leaves) > LEAVES:
            del leaves[LEAVES:]
        if hops is not None and hops.graph == "whole":
            self.has_graphs = True  # and its tensors, which are always held, say nothing of what the loop holds
            self._open = {b: known for b, known in self._open.items() if b.iteration.loader != batch.iteration.loader}
            self._open[batch] = {address_of(leaf): weakref.ref(leaf) for leaf in leaves}
        else:
            batch.first = weakref.ref(leaves[0]) if leaves else None
            if hops is None and self.has_graphs:
                self.forget_graphs(outstanding)
        for leaf in leaves:
            try:
                address = leaf.data_ptr()  # `address_of`, without its call
            except RuntimeError:
                address = 0
            known = self._known.get(address)
            if (
                known is not None
                and known[0]() is not None
                and self._is_of_another(known[1], batch, outstanding, others)
            ):
                self._known[address] = (known[0], None)  # several batches show the same memory of the data set
            elif address:
                self._known[address] = (weakref.ref(leaf), batch)
        if len(self._known) > self._limit:
            self._known = {k: v for k, v in self._known.items() if v[0]() is not None}
            self._limit = 2 * len(self._known) + 4 * LEAVES

    @staticmethod
    def _is_of_another(known: Batch | None, batch: Batch, outstanding: Container[Batch | None], others: bool) -> bool:
        return known is not batch and (known in outstanding or (known is None and others))

    def batches_of(self, tensors: Iterable[torch.Tensor]) -> dict[Batch, None]:
        """The batches whose memory these tensors show."""
        batches: dict[Batch, None] = {}
        self.parts = {}
        for tensor in tensors:
            try:
                found = self._known.get(tensor.data_ptr())
            except RuntimeError:
                found = self._known.get(0)
            leaf = None if found is None else found[0]()
            if leaf is tensor and found is not None and found[1] is not None:  # the usual case
                batches[found[1]] = None
                continue
            if leaf is None and tensor._is_view():
                found, leaf = self._behind(tensor)
            if found is None or leaf is None or found[1] is None:
                continue
            batches[found[1]] = None
            if 0 < tensor.dim() == leaf.dim() and tensor.shape[0] < leaf.shape[0]:
                self.parts[found[1]] = int(tensor.storage_offset()), tensor.shape[0]
        return batches

    def _behind(self, view: torch.Tensor) -> tuple[_Known | None, torch.Tensor | None]:
        """The delivered tensor that this is a view of, and whose it is."""
        whole: Any = view._base
        found = self._known.get(address_of(whole))
        return (found, whole) if found is not None and found[0]() is whole else (None, None)

    def forget_graphs(self, outstanding: Container[Batch | None]) -> None:
        """A batch that may go into the model with a graph's memory waits: of the full batches only those that are
        `outstanding` too are still known by it."""
        graphs = [(address, b) for address, (_, b) in self._known.items() if b is not None and b.is_whole]
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
                    self._known[address] = self._open[around[0]][address], around[0] if len(around) == 1 else None
                    self.has_graphs = True
                elif (known := self._known.get(address)) is not None and known[1] in (batch, None):
                    del self._known[address]

    def clear(self) -> None:
        """Forget all of it."""
        self._known.clear()
        self._open.clear()
