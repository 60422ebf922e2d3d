"""What grounding keeps in mind: delivered batches, and the passes over loaders that deliver them."""

from __future__ import annotations

import weakref
from array import array
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.capture.hops import Hops


class Unnamed(array):  # type: ignore[type-arg]
    """No positions, of a batch of which nobody can tell the samples: followed, and not recorded."""


class Guesses(NamedTuple):
    """How many times so far what an update was made of could be more, or other, than what was told."""

    chosen: int = 0  # one among several batches of training loaders
    evaluated: int = 0  # one among several of other loaders
    mixed: int = 0  # recognised batches, beside a forward pass of what nobody delivered
    beside: int = 0  # recognised batches, while another was in hand that a submodule may have been given


NO_GUESSES = Guesses()


@dataclass(eq=False, slots=True)
class Batch:
    """One delivered batch: the positions that were drawn for it (in a graph its seeds, as node numbers), and what has
    become of it so far."""

    iteration: Iteration
    number: int
    positions: array[int]
    settled: bool = False
    hops: Hops | None = None  # in a graph
    losses: NDArray[np.float16] | None = None
    first: weakref.ref[torch.Tensor] | None = None  # of its tensors
    guesses: Guesses = NO_GUESSES  # that were made before its delivery
    is_doubtful: bool = False  # left over, and an update that was given to another batch by guess may have taken it
    is_evaluated: bool = False  # a model saw it without gradients
    recognised_by: tuple[int, ...] = ()  # optimizers that surely applied it
    guessed_by: tuple[int, ...] = ()  # optimizers that applied it as far as its turn tells
    is_passed: bool = False  # it is out of turn
    is_at_most: bool = False  # its collate function may have left some of its samples out

    @property
    def is_unnamed(self) -> bool:
        """Whether nobody can tell its samples."""
        return isinstance(self.positions, Unnamed)

    @property
    def is_whole(self) -> bool:
        """Whether it is a graph itself, whose memory is there before the batch and stays when it is done with."""
        return self.hops is not None and self.hops.graph == "whole"

    @property
    def is_used(self) -> bool:
        """Whether some update was made of it."""
        return bool(self.recognised_by or self.guessed_by)

    def is_left_in_doubt(self, now: Guesses) -> bool:
        """Whether an update may have been made of it, although it waits for one to the end."""
        then = self.guesses
        if not self.iteration.trains:
            return now.evaluated > then.evaluated
        if now.chosen > then.chosen:
            return True
        if now.mixed > then.mixed and not self.is_done_with():
            return True
        return now.beside > then.beside and not (self.is_passed or (self.is_evaluated and self.iteration.is_over))

    def is_let_go(self) -> bool:
        """Whether nobody holds its first tensor any more."""
        return self.first is None or self.first() is None

    def is_behind(self) -> bool:
        """Whether its pass is over, and nobody holds it any more."""
        return self.iteration.is_over and self.is_let_go()

    def is_done_with(self) -> bool:
        """Whether it was evaluated in a pass that is over, and nobody holds it any more."""
        return self.is_evaluated and self.is_behind()


@dataclass(eq=False, slots=True)
class Iteration:
    """One pass over a watched loader."""

    loader: int
    epoch: int
    trains: bool  # the loader was watched with the role "train"
    ahead: bool = False  # batches were delivered faster than consumed: order can only be assumed
    delivered: int = 0
    is_over: bool = False  # the loader has no more batches
    is_followed: bool = False  # a framework's loop reads it: another pass over the loader does not end it
