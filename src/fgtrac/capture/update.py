"""One optimizer under watch: which of its parameters tell of backward passes, and whether a step moved anything."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from fgtrac.capture.batch import Batch
from fgtrac.capture.tensors import Later, is_fused

Pending = dict[Batch, int]  # contributed, no update yet -> attribution
Values = list[tuple[weakref.ref[torch.Tensor], torch.Tensor]]
COMPARED = 65_536  # values of a parameter that are compared where no version counter tells that they moved


def _none() -> None:
    """Stands for what is gone."""


@dataclass(eq=False, slots=True)
class Watcher:
    """One parameter whose gradient tells that a backward pass reached its optimizer."""

    parameter: weakref.ref[torch.Tensor]
    handle: Any = None
    pending: Pending = field(default_factory=dict)
    grad: tuple[int, int] = (0, -1)  # data pointer and version of .grad when last seen
    version: int = -1  # of the parameter, then
    optimizer: KnownOptimizer | None = None
    roots: tuple[int, ...] = ()  # the root modules that have it


@dataclass(frozen=True, slots=True)
class Held:
    """A step of which is not known yet whether it was an update: it waits for the device to say so."""

    pending: Pending
    rates: tuple[Any, ...]
    stood_still: Later


@dataclass(eq=False, slots=True)
class KnownOptimizer:
    """What makes updates of traced batches: one optimizer, or all that step inside backward passes together."""

    number: int
    steps: int
    optimizer: Callable[[], torch.optim.Optimizer | None] = _none  # as long as it is there, where it is one of torch's
    watchers: list[Watcher] = field(default_factory=list)  # one or two: no backward pass should go round both
    rates: tuple[Any, ...] = ()  # as the groups have them
    last: Pending = field(default_factory=dict)  # what its last update was made of
    held: Held | None = None
    whole: KnownOptimizer | None = None  # of all that step inside backward passes, where it is one of these
    backward: int = -1  # the backward pass of the last update, there
    roots: tuple[int, ...] | None = None  # there: the root modules that have its parameters
    has_version: bool = False  # its updates move version counters
    from_version: int = -1  # of the first watched parameter, before a step of the usual kind
    _moved: tuple[weakref.ref[torch.Tensor], int] | None = None  # a parameter and its version before any other step
    _before: Values = field(default_factory=list)  # of these parameters, where they may not

    def is_pending(self) -> bool:
        """Whether something contributed since the last update."""
        return any(watcher.pending for watcher in self.watchers)

    def graded(self) -> Watcher | None:
        """The first watcher whose parameter has a gradient."""
        return next((w for w in self.watchers if (p := w.parameter()) is not None and p.grad is not None), None)

    def parameters(self) -> list[torch.Tensor]:
        """All of them, of one optimizer that is still there; otherwise those that are watched."""
        optimizer = self.optimizer()
        watched = [p for w in self.watchers if (p := w.parameter()) is not None]
        return watched if optimizer is None else list(parameters_of(optimizer))

    def take_pending(self) -> Pending:
        """What contributed since the last update, each as surely as any of the watched parameters tells."""
        together = None
        for watcher in self.watchers:
            pending, watcher.pending = watcher.pending, {}
            if together is None:
                together = pending
            elif pending != together:
                together.update({b: min(sure, together.get(b, sure)) for b, sure in pending.items()})
        return together or {}

    def note(self, optimizer: torch.optim.Optimizer, parameter: torch.Tensor | None) -> None:
        """A step begins; the parameter has a gradient."""
        self._moved = None if parameter is None else (weakref.ref(parameter), parameter._version)
        if parameter is None or self.has_version or is_fused(optimizer):
            return
        self._before = values_of([parameter, *(p for w in self.watchers if (p := w.parameter()) is not None)])

    def has_moved(self, optimizer: torch.optim.Optimizer) -> bool | Later:
        """Whether the step moved anything; a Later, whose gradients a device has still to judge, is true where it did
        not."""
        before, self._before = self._before, []
        if self._moved is None:
            return self.is_pending()  # its closure made the gradients
        parameter = self._moved[0]()
        if parameter is not None and parameter._version != self._moved[1]:
            self.has_version = True
            return True
        if (self.watchers and not self.is_pending()) or parameter is None:
            return False
        if is_fused(optimizer):
            found = getattr(optimizer, "found_inf", None)  # by a GradScaler: then the kernel changed nothing
            return True if found is None else Later(found)
        return not is_unchanged(before)  # those made through .data

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """Those in force at the last applied update, one a parameter group; none where some group has none, as when
        they are adapted inside."""
        return () if None in self.rates else tuple(map(float, self.rates))

    def rate_of(self, parameter: torch.Tensor) -> float | None:
        """The learning rate of one of the optimizer's parameters, in force at the last applied update; None where it
        is none of them."""
        optimizer = self.optimizer()
        groups = [] if optimizer is None else zip(optimizer.param_groups, self.learning_rates, strict=False)
        return next((rate for group, rate in groups if any(p is parameter for p in group["params"])), None)


def rates_of(optimizer: Any) -> tuple[Any, ...]:
    """What stands for the learning rates now, one a parameter group: a tensor may be written to later, and is read."""
    groups = optimizer.param_groups
    if len(groups) == 1 and type(rate := groups[0].get("lr")) is float:
        return (rate,)
    rates = [group.get("lr") for group in groups]
    for rate in rates:
        if isinstance(rate, torch.Tensor):
            return tuple([each.item() if isinstance(each, torch.Tensor) else each for each in rates])
    return tuple(rates)


def parameters_of(optimizer: Any) -> Iterable[torch.Tensor]:
    """All of an optimizer's parameters."""
    return itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups)


def values_of(parameters: Iterable[torch.Tensor]) -> Values:
    """Copies of the first values of some parameters."""
    distinct = {id(p): p for p in parameters}.values()
    return [(weakref.ref(p), p.detach().reshape(-1)[:COMPARED].clone()) for p in distinct]


def is_unchanged(before: Values) -> bool:
    """Whether they are the parameters' values still, as far as these are there."""
    return all(torch.equal(p.detach().reshape(-1)[:COMPARED], old) for ref, old in before if (p := ref()) is not None)
