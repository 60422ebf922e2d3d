"""Batches of loaders that nobody watches: that a model is trained on them must not go unsaid.

Their tensors are remembered as those of watched loaders are, by where they lie. A backward pass that comes through the
output of a module that was given one is training on data that the log knows nothing of. Copies are not recognised.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch

from fgtrac.capture.memory import LEAVES
from fgtrac.capture.tensors import address_of, tensors_in

REMEDY = "watch it before the loop (run.watch(loader, role=...)), or say what it uses with run.use(...)"
Doubt = Callable[[str, str], None]  # what, and the remedy


class Strangers:
    """What unwatched loaders delivered, as long as anybody holds it."""

    def __init__(self, doubt: Doubt) -> None:
        self.known: dict[int, tuple[weakref.ref[torch.Tensor], str]] = {}
        self._doubt = doubt
        self._limit = 4 * LEAVES
        self._pid = os.getpid()

    def take(self, data: Any, kind: str) -> None:
        """A loader over a data set of that kind delivered a batch."""
        if self._pid != os.getpid():
            return  # a forked child's copy
        for leaf in tensors_in(data)[:LEAVES]:
            if address := address_of(leaf):
                self.known[address] = weakref.ref(leaf), kind
        if len(self.known) > self._limit:
            self.known = {at: one for at, one in self.known.items() if one[0]() is not None}
            self._limit = 2 * len(self.known) + 4 * LEAVES

    def look(self, given: Iterable[torch.Tensor], output: Any) -> None:
        """A module was given these, with gradients on: should a backward pass come through its output, say so."""
        for tensor in given:
            whole: Any = tensor._base if tensor._is_view() else tensor
            found = self.known.get(address_of(whole))
            if found is not None and found[0]() is whole:
                self._follow(output, f"the model is trained on batches of a loader over {found[1]} that is not watched")
                return

    def _follow(self, output: Any, reason: str) -> None:
        for leaf in tensors_in(output)[:LEAVES]:
            if leaf.grad_fn is not None:
                leaf.grad_fn.register_prehook(lambda _grads: self._doubt(reason, REMEDY))
