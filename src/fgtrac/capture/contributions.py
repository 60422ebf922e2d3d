"""Which batches have contributed a gradient, and to which parameters: one or two watched ones of each optimizer."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterable
from types import FrameType

import torch
from torch._C import _current_graph_task_id
from torch.optim import optimizer

from fgtrac.capture.batch import Batch
from fgtrac.capture.parts import Seen, together
from fgtrac.capture.passes import EXACT, FIFO, Passes
from fgtrac.capture.queues import TOO_MANY, WAITING_LIMIT
from fgtrac.capture.tensors import address_of, all_zero
from fgtrac.capture.update import KnownOptimizer, Pending, Watcher
from fgtrac.events.schema import NO_STEP, STATUS

DISCARDED, UNAPPLIED = STATUS["discarded"], STATUS["unapplied"]
NO_OPTIMIZER = 0
UNOWNED_LIMIT = 4096  # batches that a parameter may collect before an optimizer claims it
BY_HAND = "parameters changed, and by no optimizer that is known", "call run.stepped() after each update made by hand"

Settle = Callable[..., None]  # batch, optimizer, step, status[, attribution]
Doubt = Callable[..., None]  # why nobody can tell any more what was used, and what the user can do about it


class Contributions:
    """Hears of each gradient that is accumulated in a watched parameter, and notices those that are thrown away."""

    def __init__(self, passes: Passes, settle: Settle, doubt: Doubt) -> None:
        self._passes = passes
        self._settle = settle
        self._doubt = doubt
        self.watchers: dict[int, Watcher] = {}
        self._fired: list[Watcher] = []  # those that the backward pass under way has met
        self._guards: list[Watcher] = []  # one of each optimizer
        self.roots_of: Callable[[torch.Tensor], tuple[int, ...]] = lambda _parameter: ()
        self.stepping = 0  # an optimizer is, with a closure: the identity of the frame of its `step`
        self._left: frozenset[Batch] = frozenset()  # what had contributed before that: its gradients may be thrown away

    def watch(self, parameter: torch.Tensor, roots: tuple[int, ...] | None = None) -> Watcher:
        """Watch a parameter, if that is not done yet; `roots` are the root modules that have it, if that is known."""
        watcher = self.find(parameter)
        if watcher is None:
            watcher = self.watchers[id(parameter)] = Watcher(weakref.ref(parameter))
            watcher.roots = self.roots_of(parameter) if roots is None else roots
            hook = functools.partial(self._accumulated, watcher)
            watcher.handle = parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        return watcher

    def find(self, parameter: torch.Tensor) -> Watcher | None:
        """The watcher of a parameter."""
        watcher = self.watchers.get(id(parameter))
        return watcher if watcher is not None and watcher.parameter() is parameter else None

    def unwatch(self, watcher: Watcher) -> None:
        """Watch its parameter no longer."""
        watcher.handle.remove()
        key = id(watcher.parameter())
        if self.watchers.get(key) is watcher:
            del self.watchers[key]

    def keep(self, known: KnownOptimizer, chosen: list[Watcher], watchers: list[Watcher]) -> None:
        """Of these watchers of an optimizer keep the first and the last chosen: a frozen layer, or one that a batch
        went round, is seldom both."""
        known.watchers = [chosen[0], chosen[-1]] if chosen[-1] is not chosen[0] else chosen[:1]
        self._guards = [w for w in self._guards if w.optimizer is not known] + known.watchers[-1:]
        for watcher in known.watchers:
            watcher.optimizer = known
        for other in watchers:
            if other not in known.watchers:
                known.watchers[0].pending.update(other.pending)
                self.unwatch(other)

    def close(self) -> None:
        """Remove every hook: what contributed will not be applied."""
        for watcher in self.watchers.values():
            watcher.handle.remove()
            self._drop(watcher, UNAPPLIED)
        self.watchers.clear()

    # -- a step with a closure ----------------------------------------------------------------------------------

    def begin_step(self) -> None:
        """An optimizer's `step` has called a hook, and will call a closure, which makes gradients anew as it likes."""
        frame = sys._getframe(1)
        while frame.f_code.co_filename != optimizer.__file__ and frame.f_back is not None:
            frame = frame.f_back
        self.stepping = id(frame)
        self._left = frozenset(batch for watcher in self.watchers.values() for batch in watcher.pending)

    def end_step(self) -> None:
        """None is under way."""
        self.stepping, self._left = 0, frozenset()

    def _is_stepping(self) -> bool:
        """Whether a step is still under way: where it raised an error, nobody has said that it ended."""
        frame: FrameType | None = sys._getframe(1) if self.stepping else None
        while frame is not None:
            if id(frame) == self.stepping and frame.f_code.co_filename == optimizer.__file__:
                return True
            frame = frame.f_back
        self.end_step()
        return False

    def _made_inside(self, watcher: Watcher) -> list[Batch]:
        """What contributed in the step under way: its update rests on that, whatever became of the gradient since."""
        return [batch for batch in watcher.pending if batch not in self._left] if self.stepping else []

    # -- backward -----------------------------------------------------------------------------------------------

    def _accumulated(self, watcher: Watcher, parameter: torch.Tensor) -> None:
        if self._passes.looks_away:
            return
        grad, passes, backward = parameter.grad, self._passes, _current_graph_task_id()
        pending, before = watcher.pending, watcher.grad
        try:
            watcher.grad = (0, -1) if grad is None else (grad.data_ptr(), grad._version)  # None: a hook took it
        except RuntimeError:
            watcher.grad = (0, -1 if grad is None else grad._version)
        is_moved = False
        if watcher.optimizer is None:
            is_moved, watcher.version = watcher.version not in (-1, parameter._version), parameter._version
        if not pending and backward != -1:
            if backward == passes.backward and passes.attribution == EXACT and not passes.parts:
                self._fired.append(watcher)  # it has met the other parameter
                for batch in passes.current:
                    pending[batch] = EXACT
                return
            alone = passes.alone
            if (
                alone is not None
                and passes.called[-1] in watcher.roots
                and backward != passes.backward
                and not passes.reached
            ):  # the usual case
                passes.begin(backward, alone[1], pending)
                self._fired = [watcher]
                return
        is_thrown = self._is_thrown(watcher, before, grad)
        self.decide(backward, watcher.roots)
        if is_thrown:
            kept = [*passes.current, *self._made_inside(watcher)]
            if self._drop(watcher, DISCARDED, but=kept) and is_moved:
                self._doubt(*BY_HAND)
            for batch in passes.current:  # it contributes anew, and perhaps a part of it only
                watcher.pending.pop(batch, None)
        self._fired.append(watcher)
        self.contribute(watcher, passes.current)
        if passes.is_told and not passes.current and pending:
            self.tell_of_nothing()
        self._bound(watcher)

    def _is_thrown(self, watcher: Watcher, before: tuple[int, int], grad: torch.Tensor | None) -> bool:
        """Whether the gradient of what contributed before was thrown away, as far as can be told."""
        seen = watcher.grad
        is_added = seen[0] == before[0] and seen[1] == before[1] + 1
        if is_added or not watcher.pending or grad is None or not seen[0] or grad.requires_grad:
            return False  # sparse, or with create_graph: unclear
        if seen[0] == before[0] and seen[1] > before[1]:  # clipped, scaled or zeroed after the forward pass
            for batch in watcher.pending.keys() - self._made_inside(watcher):
                watcher.pending[batch] = int(max(FIFO, watcher.pending[batch]))
            return False
        return True

    def decide(self, backward: int, roots: Iterable[int] | None = None) -> None:
        """Which batches the backward pass is about, if that is not known yet."""
        if self._passes.consume(backward, roots):
            self._fired = []

    def tell_of_nothing(self) -> None:
        """An update was made of no batch that is known."""
        self._doubt("an update followed no delivered batch")

    def reach(self, batches: Seen) -> None:
        """A backward pass came through an output that was computed from these batches."""
        if self._passes.reach(batches):
            for watcher in self._fired:
                self.contribute(watcher, batches)

    def contribute(self, watcher: Watcher, batches: Iterable[Batch]) -> None:
        """They are in its gradient."""
        number = watcher.optimizer.number if watcher.optimizer is not None else NO_OPTIMIZER
        for batch, sure in self.take(batches, number).items():
            watcher.pending[batch] = together(watcher.pending.get(batch), sure)

    def take(self, batches: Iterable[Batch], optimizer: int) -> Pending:
        """They wait no more for a backward pass; how surely they are the optimizer's."""
        for batch in batches:
            self._passes.queues.consume(batch)
        return {batch: self._passes.sureness(batch, optimizer) for batch in batches}

    # -- what is thrown away ------------------------------------------------------------------------------------

    def look(self) -> None:
        """Before more is accumulated: what became of gradients, and are there parameters that will get some?"""
        for watcher in self.watchers.values():
            if watcher.pending and (not self.stepping or self._left or not self._is_stepping()):
                self._look_at_gradient(watcher)
        for watcher in self._guards:
            parameter = watcher.parameter()
            if parameter is not None and not parameter.requires_grad:
                self._look_for_others(watcher.optimizer)

    def _look_for_others(self, owner: KnownOptimizer | None) -> None:
        """A watched parameter was frozen: where all of its optimizer are, watch others."""
        if owner is not None and not any(p.requires_grad for w in owner.watchers if (p := w.parameter()) is not None):
            trained = [p for p in owner.parameters() if p.requires_grad]
            if trained:
                chosen = [self.watch(trained[0]), self.watch(trained[-1])]
                self.keep(owner, chosen, [*owner.watchers, *chosen])

    def _look_at_gradient(self, watcher: Watcher) -> None:
        """Was what waits for an update zeroed in place, or only clipped or scaled?"""
        parameter = watcher.parameter()
        grad = None if parameter is None else parameter.grad
        if grad is None or (seen := (address_of(grad), grad._version)) == watcher.grad or not seen[0]:
            return
        owner = watcher.optimizer
        free = [p for w in self.watchers.values() if w.optimizer is None and (p := w.parameter()) is not None]
        if all_zero(free if owner is None else owner.parameters()):
            self._drop(watcher, DISCARDED, but=self._made_inside(watcher) if self._is_stepping() else ())
        watcher.grad = seen

    def _bound(self, watcher: Watcher) -> None:
        """No update comes."""
        if watcher.optimizer is None and len(watcher.pending) > UNOWNED_LIMIT:
            self.unwatch(watcher)  # a parameter that no optimizer updates
            self._drop(watcher, UNAPPLIED)
        elif len(watcher.pending) > WAITING_LIMIT:
            self._doubt(TOO_MANY)
            self._drop(watcher, UNAPPLIED, but=list(watcher.pending)[1:])

    def _drop(self, watcher: Watcher, status: int, but: Iterable[Batch] = ()) -> bool:
        """What contributed will not be applied, but for some: whether there was anything else that nobody settled. An
        optimizer speaks not for what it has just applied (as a critic that a generator's pass comes through), a
        parameter of none only for what nobody settled."""
        owner, kept = watcher.optimizer, set(but)
        dropped = {batch: sure for batch, sure in watcher.pending.items() if batch not in kept}
        is_lost = any(not batch.settled for batch in dropped)
        for batch, attribution in dropped.items():
            for other in owner.watchers if owner is not None else (watcher,):
                other.pending.pop(batch, None)
            if not batch.settled if owner is None else batch not in owner.last:
                self._settle(batch, owner.number if owner else NO_OPTIMIZER, NO_STEP, status, attribution)
        return is_lost
