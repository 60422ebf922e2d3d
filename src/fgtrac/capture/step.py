"""Grounding: which delivered batches took part in which applied optimizer update, and how sure we are.

A batch goes delivered -> contributed (a gradient was accumulated from it) -> applied | discarded | unapplied.
The signals are PyTorch's own: a forward hook on the root module (does its input lie in a delivered batch's memory?
then a backward pass through its output is about that batch), a post-accumulate hook on one parameter of each
optimizer, and the global hooks around `Optimizer.step`.
Nothing here draws random numbers, touches a tensor's values or keeps one alive.
"""

from __future__ import annotations

import itertools
import weakref
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from fgtrac.events.schema import ATTRIBUTION, NO_STEP, STATUS

EXACT, SOLE, FIFO = ATTRIBUTION["exact"], ATTRIBUTION["sole"], ATTRIBUTION["fifo"]
APPLIED, DISCARDED, UNAPPLIED = STATUS["applied"], STATUS["discarded"], STATUS["unapplied"]
LEDGER_LEAVES = 8  # tensors of one batch that are remembered
NO_OPTIMIZER = 0
UNOWNED_LIMIT = 4096  # batches that a parameter may collect before an optimizer claims it


@dataclass(eq=False, slots=True)
class Batch:
    """One delivered batch: the positions that were drawn for it, and what has become of it so far."""

    iteration: Iteration
    number: int
    positions: array[int]
    passed: bool = False  # a later batch was matched exactly: only an exact match can still claim this one
    settled: bool = False
    losses: NDArray[np.float16] | None = None


@dataclass(eq=False, slots=True)
class Iteration:
    """One pass over a watched loader."""

    loader: int
    epoch: int
    trains: bool  # the loader was watched with the role "train"
    ahead: bool = False  # batches were delivered faster than consumed: order can only be assumed
    delivered: int = 0


@dataclass(eq=False, slots=True)
class _Watcher:
    """One parameter whose gradient tells that a backward pass reached its optimizer."""

    parameter: weakref.ref[torch.Tensor]
    handle: Any = None
    pending: dict[Batch, int] = field(default_factory=dict)  # contributed, no update yet -> attribution
    grad: tuple[int, int] = (0, -1)  # data pointer and version of .grad when last seen
    optimizer: _Optimizer | None = None


@dataclass(eq=False, slots=True)
class _Optimizer:
    """One optimizer that has used traced batches."""

    number: int
    watcher: _Watcher
    steps: int = 0
    in_step: bool = False
    version: int = 0
    learning_rates: tuple[float, ...] = ()


Settle = Callable[[Batch, int, int, int, int], None]  # batch, optimizer, step, status, attribution


class Grounding:
    """The state machine of one run. `settle` receives every batch once for each fate it meets."""

    def __init__(self, settle: Settle, *, first_step: int = 0) -> None:
        self._report = settle
        self._first_step = first_step
        self._outstanding: dict[Batch, None] = {}
        self._ledger: dict[int, tuple[weakref.ref[torch.Tensor], Batch]] = {}
        self._ledger_limit = 4 * LEDGER_LEAVES
        self._forwarded: list[Batch] = []
        self._reached: dict[Batch, None] = {}
        self._current: list[Batch] = []
        self._attribution = FIFO
        self._backward = -1
        self._watchers: dict[int, _Watcher] = {}
        self._optimizers: weakref.WeakKeyDictionary[torch.optim.Optimizer, _Optimizer] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self._roots: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
        self._inner: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
        self._root_handles: list[Any] = []
        self._discovery: Any = None
        self._latest: _Optimizer | None = None
        self._hooks = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        self._discover()

    @property
    def step(self) -> int:
        """Applied updates of the optimizer that stepped last; the resumed-from step before the first."""
        return self._latest.steps if self._latest is not None else self._first_step

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The learning rates, one a parameter group, in force at the last applied update."""
        return self._latest.learning_rates if self._latest is not None else ()

    @property
    def current(self) -> list[Batch]:
        """The batches of the last forward pass where its input was recognised, else the next one in order."""
        return self._forwarded or self._candidates()[:1] or self._current

    # -- delivery -----------------------------------------------------------------------------------------------

    def deliver(self, iteration: Iteration, positions: array[int], data: Any) -> Batch:
        """A watched loader hands over a batch."""
        batch = Batch(iteration, iteration.delivered, positions)
        iteration.delivered += 1
        if self._outstanding and not iteration.ahead:
            iteration.ahead = any(b.iteration is iteration and not b.passed for b in self._outstanding)
        self._outstanding[batch] = None
        for leaf in itertools.islice(tensors_in(data), LEDGER_LEAVES):
            self._ledger[leaf.untyped_storage().data_ptr()] = (weakref.ref(leaf), batch)
        if len(self._ledger) > self._ledger_limit:
            self._ledger = {k: v for k, v in self._ledger.items() if v[0]() is not None}
            self._ledger_limit = 2 * len(self._ledger) + 4 * LEDGER_LEAVES
        return batch

    def exhausted(self, iteration: Iteration) -> None:
        """The loader has no more batches: what an evaluation loader delivered is now claimed by exact match only."""
        if not iteration.trains:
            for batch in self._outstanding:
                if batch.iteration is iteration:
                    batch.passed = True

    def restarted(self, loader: int) -> None:
        """A new pass over the loader begins: what the earlier ones left outstanding was never used."""
        for batch in [b for b in self._outstanding if b.iteration.loader == loader]:
            del self._outstanding[batch]
            self._settle(batch, NO_OPTIMIZER, NO_STEP, UNAPPLIED)

    def close(self) -> None:
        """Remove every hook; settle what is left as unapplied."""
        for hook in [*self._hooks, *self._root_handles, self._discovery]:
            if hook is not None:
                hook.remove()
        for watcher in self._watchers.values():
            watcher.handle.remove()
            number = watcher.optimizer.number if watcher.optimizer is not None else NO_OPTIMIZER
            for batch in watcher.pending:
                if watcher.optimizer is not None or not batch.settled:
                    self._settle(batch, number, NO_STEP, UNAPPLIED)
        for batch in self._outstanding:
            self._settle(batch, NO_OPTIMIZER, NO_STEP, UNAPPLIED)
        self._outstanding.clear()
        self._watchers.clear()
        self._ledger.clear()

    def _settle(self, batch: Batch, optimizer: int, step: int, status: int, attribution: int | None = None) -> None:
        batch.settled = True
        if attribution is None:
            attribution = FIFO if batch.iteration.ahead else SOLE
        self._report(batch, optimizer, step, status, attribution)

    # -- forward ------------------------------------------------------------------------------------------------

    def _discover(self) -> None:
        """Look for root modules until an optimizer has stepped; a global hook costs every module call, so it goes."""
        if self._discovery is None:
            self._discovery = torch.nn.modules.module.register_module_forward_pre_hook(self._found)

    def _found(self, module: torch.nn.Module, args: Any) -> None:
        if not self._outstanding or not torch.is_grad_enabled() or module in self._roots or module in self._inner:
            return
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            return
        self._roots.add(module)
        for inner in module.modules():
            if inner is not module:
                self._inner.add(inner)
        self._root_handles.append(module.register_forward_hook(self._after_forward, with_kwargs=True))
        for parameter in parameters:
            self._watch(parameter)

    def _after_forward(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Look the call's inputs up in the ledger; let a backward pass through its outputs tell us."""
        if torch.compiler.is_compiling():
            return
        batches: dict[Batch, None] = {}
        for leaf in tensors_in((args, kwargs)):
            found = self._ledger.get(leaf.untyped_storage().data_ptr())
            if found is not None and found[0]() is not None:
                batches[found[1]] = None
        if not torch.is_grad_enabled():
            for batch in batches:
                batch.passed = True  # evaluated; it can still be trained on, when a gradient says so
            return
        self._forwarded = list(batches)
        if batches:
            for leaf in itertools.islice(tensors_in(output), LEDGER_LEAVES):
                if leaf.grad_fn is not None:
                    leaf.grad_fn.register_prehook(lambda _grads: self._reach(batches))

    def _reach(self, batches: dict[Batch, None]) -> None:
        """A backward pass came through an output that was computed from these batches."""
        self._reached.update(batches)

    # -- backward -----------------------------------------------------------------------------------------------

    def _watch(self, parameter: torch.Tensor) -> _Watcher:
        watcher = self._watchers.get(id(parameter))
        if watcher is None or watcher.parameter() is not parameter:
            watcher = _Watcher(weakref.ref(parameter))
            watcher.handle = parameter.register_post_accumulate_grad_hook(lambda p: self._accumulated(watcher, p))
            self._watchers[id(parameter)] = watcher
        return watcher

    def _accumulated(self, watcher: _Watcher, parameter: torch.Tensor) -> None:
        grad = parameter.grad
        if grad is None:
            return
        pointer, version = grad.data_ptr(), grad._version
        if watcher.pending and not (watcher.optimizer is not None and watcher.optimizer.in_step):
            if pointer != watcher.grad[0] or version != watcher.grad[1] + 1:
                self._discard(watcher)
        watcher.grad = (pointer, version)
        self._consume()
        for batch in self._current:
            watcher.pending.setdefault(batch, self._attribution)
        if watcher.optimizer is None and len(watcher.pending) > UNOWNED_LIMIT:
            watcher.handle.remove()  # a parameter that no optimizer updates
            del self._watchers[id(parameter)]

    def _consume(self) -> None:
        """Decide which batches this backward pass is about: once a pass, however many parameters are watched."""
        backward = torch._C._current_graph_task_id()
        again = backward == self._backward and backward != -1
        self._backward = backward
        if self._reached:
            reached, self._reached = list(self._reached), {}
            self._current = self._current + reached if again else reached
            self._attribution = EXACT
            self._pass_over(reached[-1])
        elif again:
            return
        else:
            candidates = self._candidates()
            if not candidates:
                return  # a second pass over the same batch
            batch = candidates[0]
            self._attribution = SOLE if len(candidates) == 1 and not batch.iteration.ahead else FIFO
            self._current = [batch]
        for batch in self._current:
            self._outstanding.pop(batch, None)

    def _candidates(self) -> list[Batch]:
        """Delivered and not yet consumed, training loaders first, in order of delivery."""
        waiting = [b for b in self._outstanding if not b.passed]
        return [b for b in waiting if b.iteration.trains] or waiting

    def _pass_over(self, matched: Batch) -> None:
        for batch in self._outstanding:
            if batch.iteration is matched.iteration and batch.number < matched.number:
                batch.passed = True

    def _discard(self, watcher: _Watcher) -> None:
        """The gradient was thrown away before an update. A parameter of no optimizer yet speaks only for the unsettled."""
        owner = watcher.optimizer
        for batch, attribution in watcher.pending.items():
            if owner is not None or not batch.settled:
                self._settle(batch, owner.number if owner else NO_OPTIMIZER, NO_STEP, DISCARDED, attribution)
        watcher.pending.clear()

    # -- update -------------------------------------------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        known = self._optimizers.get(optimizer)
        if known is None:
            known = self._recognise(optimizer)
            if known is None:
                return
        for batch in self._reached:  # by the same backward pass, after the watched parameter had its gradient
            known.watcher.pending.setdefault(batch, EXACT)
            self._outstanding.pop(batch, None)
        self._reached = {}
        parameter = known.watcher.parameter()
        known.in_step = True
        known.version = parameter._version if parameter is not None else 0

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        known = self._optimizers.get(optimizer)
        if known is None:
            return
        known.in_step = False
        parameter = known.watcher.parameter()
        pending = known.watcher.pending
        changed = parameter is not None and parameter._version != known.version
        if not changed and not (is_fused(optimizer) and pending):
            return  # nothing moved: what contributed waits for a later update, or is discarded
        known.steps += 1
        known.learning_rates = tuple(float(group["lr"]) for group in optimizer.param_groups)
        self._latest = known
        for batch, attribution in pending.items():
            self._settle(batch, known.number, known.steps, APPLIED, attribution)
        pending.clear()
        if self._discovery is not None:
            self._discovery.remove()
            self._discovery = None

    def _recognise(self, optimizer: torch.optim.Optimizer) -> _Optimizer | None:
        """First step of an optimizer: keep one watched parameter of it, or None where no traced batch reached it."""
        if not (self._outstanding or self._reached or self._watchers):
            return None
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        watchers = [w for p in parameters if (w := self._watchers.get(id(p))) is not None and w.parameter() is p]
        fired = [w for w in watchers if w.pending]
        if not fired:
            if not parameters or not (self._outstanding or self._reached):
                return None
            watcher = self._watch(parameters[0])  # no module led here: attribute at the step, watch from now on
            self._backward = -1
            self._consume()
            watcher.pending.update((b, self._attribution) for b in self._current)
            fired = [watcher]
            self._discover()
        kept = fired[0]
        for other in watchers:
            if other is not kept:
                kept.pending.update(other.pending)
                other.handle.remove()
                parameter = other.parameter()
                self._watchers.pop(id(parameter), None)
        known = _Optimizer(next(self._numbers), kept, steps=self._first_step)
        kept.optimizer = known
        self._optimizers[optimizer] = known
        return known


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Fused kernels update parameters without moving their version counter."""
    return any(group.get("fused") for group in optimizer.param_groups)


def tensors_in(data: Any, depth: int = 3) -> Iterable[torch.Tensor]:
    """The tensors of a batch or of a call's arguments, outermost first; dicts, lists and tuples are opened."""
    if isinstance(data, torch.Tensor):
        yield data
    elif depth and isinstance(data, dict):
        for value in data.values():
            yield from tensors_in(value, depth - 1)
    elif depth and isinstance(data, list | tuple):
        for value in data:
            yield from tensors_in(value, depth - 1)
