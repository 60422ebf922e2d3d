"""The optimizers of a training: which of their steps are updates, and which batches these are made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any
from weakref import ref

import torch
from torch._C import _current_graph_task_id
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from fgtrac.capture.contributions import DISCARDED, Contributions, Settle
from fgtrac.capture.passes import FIFO, Passes
from fgtrac.capture.root_modules import Roots
from fgtrac.capture.tensors import Later, address_of, all_zero
from fgtrac.capture.update import Held, KnownOptimizer, Pending, Watcher, parameters_of, rates_of
from fgtrac.events.schema import NO_STEP, STATUS

APPLIED = STATUS["applied"]


class Updates:
    """Hears of each step of every `torch.optim.Optimizer`, and of those that are told by `stepped`."""

    def __init__(
        self, passes: Passes, contributions: Contributions, roots: Roots, settle: Settle, first_step: int
    ) -> None:
        self._passes = passes
        self._contributions = contributions
        self._roots = roots
        self._settle = settle
        self.first_step = first_step
        self.numbers = itertools.count(1)
        self._known: dict[int, KnownOptimizer] = {}  # by the optimizer's identity
        self._others: list[KnownOptimizer] = []  # whatever else makes updates
        self._inside: KnownOptimizer | None = None  # all that step inside backward passes
        self._by_hand: KnownOptimizer | None = None  # whatever is told by `stepped` without its parameters
        self._latest: KnownOptimizer | None = None
        self.made = 0  # updates, of all optimizers together
        self._gone = first_step  # the greatest step of those that are forgotten
        roots.owned = self._owned
        self._hooks = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]

    @property
    def step(self) -> int:
        """Of the optimizer that stepped last."""
        self.read()
        return self._latest.steps if self._latest is not None else self.first_step

    @property
    def greatest_step(self) -> int:
        """Of any optimizer."""
        self.read()
        return max([self._gone, *(known.steps for known in (*self._known.values(), *self._others))])

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """Of all optimizers, the one that stepped last first."""
        self.read()
        there = [known for known in self._known.values() if known.optimizer() is not None]
        known = [one for one in (*there, *self._others) if one is not self._latest and one.whole is None]
        others = sorted(known, key=lambda one: one.number)
        every = others if self._latest is None else [self._latest, *others]  # the latest also where it is gone by now
        return tuple(rate for one in every for rate in one.learning_rates)

    def learning_rate_of(self, parameter: torch.Tensor) -> float | None:
        """Of one parameter."""
        self.read()
        rates = (known.rate_of(parameter) for known in list(self._known.values()))
        return next((rate for rate in rates if rate is not None), None)

    def close(self) -> None:
        """Remove the hooks."""
        self.read()
        for hook in self._hooks:
            hook.remove()

    # -- a step -------------------------------------------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._passes.looks_away:
            return
        if kwargs or len(args) > 1:
            self._contributions.begin_step()
        elif self._contributions.stepping:
            self._contributions.end_step()  # of a step that raised an error
        known = self._known.get(id(optimizer))
        if known is not None and known.has_version and known.watchers and known.optimizer() is optimizer:
            first = known.watchers[0]
            parameter = first.parameter()
            has_closure = kwargs or len(args) > 1
            contributes = first.pending or (has_closure and not self._passes.forwarded)
            if contributes and parameter is not None and parameter.grad is not None:  # the usual case
                known.from_version = parameter._version
                return
        if known is not None:
            known.from_version = -1  # of a step that raised an error
        known = self._find(optimizer)
        if known is None:
            return
        if known.held is not None:
            self._read(known)
        watcher = known.graded()
        parameter = None if watcher is None else watcher.parameter()
        if watcher is not None:
            if not known.is_pending():
                self._take_unseen(known, watcher, has_closure=len(args) > 1 or bool(kwargs))
        else:  # this time the backward pass went through others only
            parameter = next((p for p in parameters_of(optimizer) if p.grad is not None), None)
            if parameter is not None and known.watchers:
                if self._passes.reached or not known.is_pending():
                    self._take_for(known)
                self._watch_too(known, parameter)
        known.note(optimizer, parameter)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._passes.looks_away:
            return
        if self._contributions.stepping:
            self._contributions.end_step()
        known = self._known.get(id(optimizer))
        if known is not None and known.from_version >= 0:
            version, known.from_version = known.from_version, -1
            parameter = known.watchers[0].parameter()
            if parameter is not None and parameter._version != version:
                self._apply(known, known.take_pending(), rates_of(optimizer))
            return
        known = self._find(optimizer)  # if it was unknown, its closure made the gradients
        if known is None:
            return
        moved = known.has_moved(optimizer)
        if moved is False:
            return  # what contributed waits for a later update, or is discarded
        rates = rates_of(optimizer)
        if known.whole is not None:
            known.rates = rates
            self._apply_inside(known.whole, rates)
            return
        pending = known.take_pending()
        if isinstance(moved, Later):
            known.held = Held(pending, rates, moved)
        else:
            self._apply(known, pending, rates)

    def _apply(self, known: KnownOptimizer, pending: Pending, rates: tuple[Any, ...]) -> None:
        known.steps += 1
        self.made += 1
        if not pending and self._passes.is_told:
            pending = self._applied_again(known)
        known.rates, known.last = rates, pending
        self._latest = known
        for batch, attribution in pending.items():
            self._settle(batch, known.number, known.steps, APPLIED, attribution)
        if self._roots.seeks:
            self._roots.updated(known)

    def _applied_again(self, known: KnownOptimizer) -> Pending:
        """An update to which no backward pass led: of what the one before was made of, if its gradients are still
        there, as behind a closure that computes none."""
        watcher = known.graded()
        parameter = None if watcher is None else watcher.parameter()
        grad = None if parameter is None else parameter.grad
        is_same = grad is not None and watcher is not None and (address_of(grad), grad._version) == watcher.grad
        if is_same and self._passes.current:
            return known.last
        self._contributions.tell_of_nothing()
        return {}

    def read(self) -> None:
        """Settle what is held: whether each optimizer's last step was an update."""
        for known in list(self._known.values()):
            if known.held is not None:
                self._read(known)

    def _read(self, known: KnownOptimizer) -> None:
        held, known.held = known.held, None
        if held is not None and not held.stood_still:
            self._apply(known, held.pending, held.rates)
        elif held is not None:
            for batch, attribution in held.pending.items():
                self._settle(batch, known.number, NO_STEP, DISCARDED, attribution)

    def _apply_inside(self, known: KnownOptimizer, rates: tuple[Any, ...]) -> None:
        """One of the optimizers that step inside a backward pass, a parameter each, has stepped: together they make
        one update a pass."""
        backward = _current_graph_task_id()
        self._contributions.decide(backward, known.roots)
        if known.backward != backward:
            known.backward, known.last = backward, {}
            known.steps += 1
            self.made += 1
        known.rates, self._latest = rates, known
        new = [batch for batch in self._passes.current if batch not in known.last]
        for batch, sure in self._contributions.take(new, known.number).items():
            known.last[batch] = sure
            self._settle(batch, known.number, known.steps, APPLIED, sure)
        if self._roots.seeks and new:
            self._roots.updated(known)

    def _take_for(self, known: KnownOptimizer) -> None:
        """At a step: no watched parameter met the backward pass before it, so its batch is decided now."""
        self._passes.current = []
        self._contributions.decide(-1, {root for watcher in known.watchers for root in watcher.roots})
        self._contributions.contribute(known.watchers[0], self._passes.current)

    def _take_again(self, known: KnownOptimizer) -> None:
        """The same, where no batch is in turn: no sure use of one that another optimizer used already."""
        self._passes.take_again(is_stray=any(batch.is_used for batch in self._passes.current))
        self._contributions.contribute(known.watchers[0], self._passes.current)

    def _take_unseen(self, known: KnownOptimizer, watcher: Watcher, has_closure: bool) -> None:
        """There are gradients, and nothing contributed: the pass went round the watched parameters, the gradients are
        those of the update before, or the loop has put them there by itself."""
        passes, parameter = self._passes, watcher.parameter()
        grad = None if parameter is None else parameter.grad
        if passes.forwarded:
            self._take_for(known)
        elif has_closure or grad is None:
            return  # it will make them anew
        elif (address_of(grad), grad._version) == watcher.grad:
            watcher.pending.update(known.last if passes.current or not passes.is_told else {})
        elif all_zero(known.parameters()):
            return
        elif passes.new_forward and passes.takes:
            self._take_for(known)
        elif address_of(grad) == watcher.grad[0] and known.last:  # clipped once more
            watcher.pending.update(dict.fromkeys(known.last, FIFO))
        elif passes.current and not passes.is_told:
            self._take_again(known)

    # -- optimizers ---------------------------------------------------------------------------------------------

    def _find(self, optimizer: torch.optim.Optimizer) -> KnownOptimizer | None:
        """The optimizer, if it is known or can be recognised now."""
        known = self._known.get(id(optimizer))
        return known if known is not None and known.optimizer() is optimizer else self._recognise(optimizer)

    def _recognise(self, optimizer: torch.optim.Optimizer) -> KnownOptimizer | None:
        """First step of an optimizer: keep one or two watched parameters of it, or None where no traced batch reached
        it."""
        waits = self._passes.takes or bool(self._passes.reached)
        backward = _current_graph_task_id()
        if backward != -1:
            return self._recognise_inside(optimizer) if waits or backward == self._passes.backward else None
        if not (waits or self._contributions.watchers or self._passes.current):
            return None
        parameters = [p for p in parameters_of(optimizer) if p.grad is not None]
        watchers = [w for p in parameters if (w := self._contributions.find(p)) is not None]
        fired = [w for w in watchers if w.pending]
        if not fired and not (parameters and (waits or self._is_of_those_before(optimizer))):
            return None
        known = KnownOptimizer(next(self.numbers), self.first_step, ref(optimizer))
        self._remember(optimizer, known)
        if fired:
            self._contributions.keep(known, fired, watchers)
        else:  # no module led here: attribute at the step, watch from now on
            first, last = (self._contributions.watch(parameters[place]) for place in (0, -1))
            self._contributions.keep(known, [first, last], [first, last])
            self._take_for(known) if waits else self._take_again(known)
            self._roots.look_for(optimizer)
        return known

    def _is_of_those_before(self, optimizer: torch.optim.Optimizer) -> bool:
        """At the first step of an optimizer that no known model leads to, and no batch is in turn: whether it is taken
        to be of the batch before. Where that was recognised in an update it would have been recognised here: then
        nobody can tell."""
        passes = self._passes
        if not passes.current or passes.is_told or all_zero(parameters_of(optimizer)):
            return False
        if not any(batch.recognised_by for batch in passes.current):
            return True
        self._contributions.tell_of_nothing()
        self._roots.look_for(optimizer)
        return False

    def _owned(self) -> set[int]:
        optimizers = [one.optimizer() for one in self._known.values()]
        return {id(p) for optimizer in optimizers if optimizer is not None for p in parameters_of(optimizer)}

    def _remember(self, optimizer: torch.optim.Optimizer, known: KnownOptimizer) -> None:
        """And forget those that are gone, whose identities may be given again."""
        for key, one in list(self._known.items()):
            if one.optimizer() is None:
                self._read(one)
                self._gone = max(self._gone, one.steps)
                del self._known[key]
        self._known[id(optimizer)] = known

    def _recognise_inside(self, optimizer: torch.optim.Optimizer) -> KnownOptimizer:
        """An optimizer that steps inside a backward pass."""
        if self._inside is None:
            self._inside = KnownOptimizer(next(self.numbers), self.first_step)
            self._others.append(self._inside)
        watchers = [w for p in parameters_of(optimizer) if (w := self._contributions.find(p)) is not None]
        if watchers:
            self._inside.roots = (*(self._inside.roots or ()), *(root for w in watchers for root in w.roots))
        for watcher in watchers:
            self._contributions.unwatch(watcher)
        known = KnownOptimizer(self._inside.number, self.first_step, ref(optimizer), whole=self._inside)
        self._remember(optimizer, known)
        return known

    def _watch_too(self, known: KnownOptimizer, parameter: torch.Tensor) -> None:
        """The watched parameters had no gradient (they are frozen, say): watch one that has."""
        watcher = self._contributions.watch(parameter)
        self._contributions.keep(known, [known.watchers[0], watcher], [*known.watchers, watcher])

    def stepped(self, parameters: Iterable[torch.Tensor] | None = None) -> None:
        """An update was just made by other means than a `torch.optim.Optimizer`, of these parameters: by default of all
        that no such optimizer holds."""
        passes, contributions = self._passes, self._contributions
        if parameters is None:
            known = self._by_hand
            watchers = [w for w in contributions.watchers.values() if w.optimizer in (None, known)]
        else:
            watchers = [contributions.watch(parameter) for parameter in parameters]
            known = next((w.optimizer for w in watchers if w.optimizer is not None), None)
        if known is None:
            known = KnownOptimizer(next(self.numbers), self.first_step)
            self._others.append(known)
            self._by_hand = known if parameters is None else self._by_hand
        fired = [w for w in watchers if w.pending] or watchers
        if fired and (not known.watchers or any(w.optimizer is None for w in fired)):
            self._contributions.keep(known, fired, watchers)
        pending = known.take_pending()
        if not pending and passes.new_forward:  # no watched parameter met a backward pass
            passes.current = []
            contributions.decide(-1)
            pending = contributions.take(passes.current, known.number)
        self._apply(known, pending or known.last, ())
