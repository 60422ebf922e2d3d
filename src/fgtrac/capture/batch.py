"""What grounding keeps in mind: delivered batches and their loaders, watched parameters and their optimizers."""

from __future__ import annotations

import weakref
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.capture.hops import Hops


@dataclass(eq=False, slots=True, weakref_slot=True)
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
    guesses: int = 0  # that were made before its delivery
    is_doubtful: bool = False  # left over, and an update that was given to another batch by guess may have taken it
    is_evaluated: bool = False  # a model saw it without gradients
    is_recognised: bool = False  # by its memory, in an applied update
    is_at_most: bool = False  # its collate function may have left some of its samples out

    @property
    def is_whole(self) -> bool:
        """Whether it is a graph itself, whose memory is there before the batch and stays when it is done with."""
        return self.hops is not None and self.hops.graph == "whole"

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


@dataclass(eq=False, slots=True)
class Watcher:
    """One parameter whose gradient tells that a backward pass reached its optimizer."""

    parameter: weakref.ref[torch.Tensor]
    handle: Any = None
    pending: dict[Batch, int] = field(default_factory=dict)  # contributed, no update yet -> attribution
    grad: tuple[int, int] = (0, -1)  # data pointer and version of .grad when last seen
    optimizer: KnownOptimizer | None = None


@dataclass(eq=False, slots=True)
class KnownOptimizer:
    """One optimizer that has used traced batches."""

    number: int
    watcher: Watcher
    steps: int = 0
    moved: tuple[weakref.ref[torch.Tensor], int] | None = None  # a parameter and its version before the step
    learning_rates: tuple[float, ...] = ()

    def rate_of(self, optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> float | None:
        """The learning rate of one of the optimizer's parameters, in force at the last applied update; None where it
        is none of them."""
        groups = zip(optimizer.param_groups, self.learning_rates, strict=False)
        return next((rate for group, rate in groups if any(p is parameter for p in group["params"])), None)
