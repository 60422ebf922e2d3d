"""Grounding: which delivered batches took part in which applied optimizer update, and how sure we are.

A batch goes delivered -> contributed (a gradient was accumulated from it) -> applied | discarded | unapplied.
The signals are PyTorch's own: a forward hook on the root module (does its input lie in a delivered batch's memory?
then a backward pass through its output is about that batch), a post-accumulate hook on one parameter of each
optimizer, and the global hooks around `Optimizer.step`.
Nothing here draws random numbers or touches a tensor's values; an output is kept until its backward pass or the next
delivery, whichever comes first.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch._C import _current_graph_task_id
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from fgtrac.capture.batch import Batch, Iteration, KnownOptimizer, Watcher
from fgtrac.capture.hops import Hops
from fgtrac.capture.memory import LEAVES, BatchMemory
from fgtrac.capture.tensors import address_of, all_zero, is_fused, skipped_inside, tensors_in
from fgtrac.events.schema import ATTRIBUTION, NO_STEP, STATUS

EXACT, SOLE, FIFO = ATTRIBUTION["exact"], ATTRIBUTION["sole"], ATTRIBUTION["fifo"]
STRAY = max(ATTRIBUTION.values()) + 1  # fifo, and perhaps of data that nobody delivered
APPLIED, DISCARDED, UNAPPLIED = STATUS["applied"], STATUS["discarded"], STATUS["unapplied"]
NO_OPTIMIZER = 0
UNOWNED_LIMIT = 4096  # batches that a parameter may collect before an optimizer claims it


Settle = Callable[[Batch, int, int, int, int], None]  # batch, optimizer, step, status, attribution
Doubt = Callable[[str], None]  # why nobody can tell any more what was used


class _RootHook:
    """The forward hook of a root module. In a copied or pickled model it is a call that does nothing."""

    def __init__(self, grounding: Grounding) -> None:
        self._grounding = weakref.ref(grounding)

    def __call__(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        grounding = self._grounding()
        if grounding is not None:
            grounding._after_forward(module, args, kwargs, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")  # takes any arguments, returns None, and needs no fgtrac to load


class Grounding:
    """The state machine of one run. `settle` receives every batch once for each fate it meets; `doubt` hears of updates
    that are perhaps of no delivered batch."""

    def __init__(self, settle: Settle, doubt: Doubt, *, first_step: int = 0) -> None:
        self._report = settle
        self._doubt = doubt
        self.first_step = first_step
        self._outstanding: dict[Batch, None] = {}  # delivered, and next in order to be trained on
        self._passed: dict[Batch, None] = {}  # evaluated or passed over: an exact match can still claim these
        self._aside: dict[Batch, None] = {}  # passed over as evaluated, since `_current` was decided
        self._ended: Batch | None = None  # the last full batch to train on whose body ended before it was used
        self._declared: dict[Batch, None] = {}  # what a framework's hook says that the next passes are about
        self._memory = BatchMemory()
        self._forwarded: dict[Batch, None] = {}  # recognised, and no backward pass has come through their outputs
        self._alone: tuple[Any, dict[Batch, None]] | None = None  # the only such forward pass: its output, its batches
        self._reached: dict[Batch, None] = {}  # by a backward pass that has met no watched parameter yet
        self._reached_by = -1
        self._current: list[Batch] = []
        self._attribution = FIFO
        self._guesses = {True: 0, False: 0}  # choices of one among several batches, of training loaders or of others
        self._backward = -1  # the backward pass that `_current` is about
        self._fired: list[Watcher] = []  # the watchers that it has met
        self._stepping = False
        self._new_forward = False  # since then, or a delivery
        self._watchers: dict[int, Watcher] = {}
        self._optimizers: weakref.WeakKeyDictionary[torch.optim.Optimizer, KnownOptimizer] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self._roots: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
        self._inner: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
        self._root_handles: list[Any] = []
        self._discovery: Any = None
        self._look_on = False  # past the present step
        self._looks_away = False
        self._latest: KnownOptimizer | None = None
        self._hooks = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        self._discover()

    def new_optimizer_number(self) -> int:
        """For an optimizer that is none of torch's."""
        return next(self._numbers)

    @property
    def step(self) -> int:
        """Applied updates of the optimizer that stepped last; the resumed-from step before the first."""
        return self._latest.steps if self._latest is not None else self.first_step

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The learning rates, one a parameter group, in force at the last applied update of each optimizer; the one
        that stepped last first."""
        others = sorted(
            (one for one in self._optimizers.values() if one is not self._latest), key=lambda one: one.number
        )
        known = others if self._latest is None else [self._latest, *others]  # the latest also where it is gone by now
        return tuple(rate for one in known for rate in one.learning_rates)

    def learning_rate_of(self, parameter: torch.Tensor) -> float | None:
        """The learning rate of one parameter, in force at the last applied update; None where no optimizer that has
        stepped under trace holds it."""
        rates = (known.rate_of(optimizer, parameter) for optimizer, known in list(self._optimizers.items()))
        return next((rate for rate in rates if rate is not None), None)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """What models compute meanwhile is no part of the training: it is not looked at."""
        before, self._looks_away = self._looks_away, True
        try:
            yield
        finally:
            self._looks_away = before

    @property
    def looks_away(self) -> bool:
        """Whether what happens now is `unseen`."""
        return self._looks_away

    @property
    def current(self) -> list[Batch]:
        """The batches of the last forward pass where its input was recognised, else the next one in order."""
        waiting = self._candidates()[:1] if self._new_forward else []
        return list(self._forwarded or self._declared) or waiting or self._current

    # -- delivery -----------------------------------------------------------------------------------------------

    def deliver(self, iteration: Iteration, positions: array[int], data: Any, hops: Hops | None = None) -> Batch:
        """A watched loader hands over a batch; in a graph `hops` are its neighbours."""
        batch = Batch(iteration, iteration.delivered, positions, hops=hops, guesses=self._guesses[iteration.trains])
        iteration.delivered += 1
        if self._outstanding and not iteration.ahead:
            iteration.ahead = any(b.iteration is iteration for b in self._outstanding)
        others = bool(self._outstanding)
        self._outstanding[batch] = None
        self._forwarded, self._alone, self._new_forward = {}, None, True
        self._memory.take(batch, data, self._outstanding, others)
        return batch

    def declare(self, batches: Iterable[Batch] = ()) -> None:
        """A framework's own hook says which delivered batches the forward and backward passes from now on are about,
        all of them together, until it says otherwise: these are `exact`, also where the model is given copies.

        It holds up to the update, so let it stand until the next batch; no batches end it.
        """
        self._declared = dict.fromkeys(batches)

    def exhausted(self, iteration: Iteration) -> None:
        """The loader has no more batches: what an evaluation loader delivered is now out of turn, and what a training
        loader did where it was evaluated and let go, and a full batch, whose loop's body has ended."""
        iteration.is_over = True
        self._memory.end(iteration)
        mine = [b for b in self._outstanding if b.iteration is iteration]
        self._set_aside([b for b in mine if not iteration.trains or (b.is_done_with() and not b.is_whole)])
        for batch in [b for b in mine if b.is_whole and iteration.trains]:
            self._pass_over([batch])
            self._ended = batch

    def restarted(self, loader: int) -> None:
        """A new pass over the loader begins: what the earlier ones left outstanding was never used."""
        for waiting in (self._passed, self._outstanding):
            for batch in [b for b in waiting if b.iteration.loader == loader]:
                del waiting[batch]
                self._settle(batch, NO_OPTIMIZER, NO_STEP, UNAPPLIED)
        if self._declared:
            self.declare([b for b in self._declared if b.iteration.loader != loader])

    def close(self) -> None:
        """Remove every hook; settle what is left as unapplied."""
        for hook in [*self._hooks, *self._root_handles, self._discovery]:
            if hook is not None:
                hook.remove()
        for watcher in self._watchers.values():
            watcher.handle.remove()
            self._drop(watcher, UNAPPLIED)
        for batch in [*self._passed, *self._outstanding]:
            self._settle(batch, NO_OPTIMIZER, NO_STEP, UNAPPLIED)
        for kept in (self._passed, self._aside, self._outstanding, self._watchers, self._memory):
            kept.clear()

    def _settle(self, batch: Batch, optimizer: int, step: int, status: int, attribution: int | None = None) -> None:
        if status == UNAPPLIED and not batch.settled:
            batch.is_doubtful = self._guesses[batch.iteration.trains] > batch.guesses
        batch.settled = True
        if attribution is None:
            attribution = FIFO if batch.iteration.ahead else SOLE
        if status == APPLIED and attribution == EXACT:
            batch.is_recognised = True
        if attribution == STRAY:
            attribution = FIFO
            if status == APPLIED:
                self._doubt("an update followed no delivered batch")
        self._report(batch, optimizer, step, status, attribution)

    # -- forward ------------------------------------------------------------------------------------------------

    def _discover(self) -> None:
        """Look for root modules until an optimizer has stepped; a global hook costs every module call, so it goes."""
        if self._discovery is None:
            self._discovery = torch.nn.modules.module.register_module_forward_pre_hook(self._found)

    def _found(self, module: torch.nn.Module, args: Any) -> None:
        waits = self._outstanding or self._declared or self._ended in self._passed
        if self._looks_away or not waits or not torch.is_grad_enabled():
            return
        if module in self._roots or module in self._inner:
            return
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            return
        self._roots.add(module)
        for inner in module.modules():
            if inner is not module:
                self._inner.add(inner)
        self._root_handles.append(module.register_forward_hook(_RootHook(self), with_kwargs=True))
        for parameter in parameters:
            self._watch(parameter)

    def _after_forward(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Look the call's inputs up in the batches' memory; let a backward pass through its outputs tell us."""
        if torch.compiler.is_compiling() or self._looks_away:
            return
        batches = self._memory.batches_of(tensors_in((*args, kwargs) if kwargs else args))
        if not torch.is_grad_enabled():
            if not batches:  # an evaluation of a copied input: of the one evaluation batch there is, if there is one
                evaluated = list(itertools.islice((b for b in self._outstanding if not b.iteration.trains), 2))
                batches = self._declared or dict.fromkeys(evaluated if len(evaluated) == 1 else ())
            for batch in batches:
                batch.is_evaluated = True
            self._set_aside([b for b in batches if not b.iteration.trains])  # others are often trained on thereafter
            return
        if batches and self._memory.has_graphs:
            self._part_graphs(batches)
        for watcher in list(self._watchers.values()):
            if watcher.pending and not self._stepping:
                self._look_at_gradient(watcher)
        self._new_forward = True
        self._reached = {}  # by a pass that accumulated nothing, such as torch.autograd.grad
        if not batches:
            return
        batches.update(self._declared)
        if not self._forwarded and all(b.iteration.trains for b in batches):
            self._alone = (output, batches)  # the usual case: a backward pass now is about it, and no hook is needed
        else:
            first, self._alone = self._alone, None
            for out, known in ((output, batches), *((first,) if first else ())):
                self._follow(out, known)
        self._forwarded.update(batches)

    def _part_graphs(self, batches: dict[Batch, None]) -> None:
        """A graph's memory tells that a full batch is trained on only where no batch of node numbers, say, may be what
        goes over the same graph: leave out those where one is, and say that it is a guess where both wait."""
        known = [b for b in batches if b.hops is None]
        other = known[0] if known else next((b for b in self._outstanding if b.hops is None), None)
        if other is None:
            return
        for batch in [b for b in batches if b.is_whole]:
            waits = batch in self._outstanding
            if known and waits and batch.iteration.trains:
                continue  # both may be in one loss
            del batches[batch]
            if waits:
                batch.iteration.ahead = other.iteration.ahead = True
                self._count_guesses((batch, other))
        self._memory.forget_graphs(self._outstanding)

    def _count_guesses(self, batches: Iterable[Batch]) -> None:
        """One of them was chosen, or none, where it could have been another."""
        for trains in {b.iteration.trains for b in batches}:
            self._guesses[trains] += 1

    def _look_at_gradient(self, watcher: Watcher) -> None:
        """Before more is accumulated: was what waits for an update zeroed in place, or only clipped or scaled?"""
        parameter = watcher.parameter()
        grad = None if parameter is None else parameter.grad
        if grad is None or (seen := (address_of(grad), grad._version)) == watcher.grad or not seen[0]:
            return
        owner = watcher.optimizer
        owned = [
            p for o, known in self._optimizers.items() if known is owner for g in o.param_groups for p in g["params"]
        ]
        free = [p for w in self._watchers.values() if w.optimizer is None and (p := w.parameter()) is not None]
        if all_zero(owned if owner else free):
            self._drop(watcher, DISCARDED)
        else:
            watcher.grad = seen

    def _follow(self, output: Any, batches: dict[Batch, None]) -> None:
        """Several forward passes wait for a backward pass: let it tell which outputs it comes through."""
        for leaf in tensors_in(output)[:LEAVES]:
            if leaf.grad_fn is not None:
                leaf.grad_fn.register_prehook(lambda _grads: self._reach(batches))

    def _reach(self, batches: dict[Batch, None]) -> None:
        """A backward pass came through an output that was computed from these batches."""
        backward = _current_graph_task_id()
        if backward == self._backward and backward != -1:  # it has met watched parameters already
            self._recognised([*self._current, *batches])
            for watcher in self._fired:
                self._contribute(watcher, batches, EXACT)
            return
        if backward != self._reached_by:
            self._reached, self._reached_by = {}, backward
        self._reached.update(batches)

    # -- backward -----------------------------------------------------------------------------------------------

    def _watch(self, parameter: torch.Tensor) -> Watcher:
        watcher = self._watchers.get(id(parameter))
        if watcher is None or watcher.parameter() is not parameter:
            watcher = Watcher(weakref.ref(parameter))
            hook = functools.partial(self._accumulated, watcher)
            watcher.handle = parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
            self._watchers[id(parameter)] = watcher
        return watcher

    def _accumulated(self, watcher: Watcher, parameter: torch.Tensor) -> None:
        grad = parameter.grad
        if grad is None:
            return
        backward = _current_graph_task_id()
        alone, first_met = self._alone, backward not in (-1, self._backward)
        if alone and first_met and not (watcher.pending or self._reached or self._stepping):
            self._take_alone(backward, watcher, alone[1], grad)
            return
        pointer, version = address_of(grad), grad._version
        added = pointer == watcher.grad[0] and version == watcher.grad[1] + 1
        unclear = self._stepping or pointer == 0 or grad.requires_grad  # a closure's, sparse, or with create_graph
        if watcher.pending and not added and not unclear:
            if pointer == watcher.grad[0] and version > watcher.grad[1]:  # clipped, scaled or zeroed after the forward
                watcher.pending = {batch: max(FIFO, sure) for batch, sure in watcher.pending.items()}
            else:
                self._drop(watcher, DISCARDED)  # the gradient of those was thrown away
        watcher.grad = (pointer, version)
        self._consume()
        self._fired.append(watcher)
        self._contribute(watcher, self._current, self._attribution)
        if watcher.optimizer is None and len(watcher.pending) > UNOWNED_LIMIT:
            watcher.handle.remove()  # a parameter that no optimizer updates
            self._drop(watcher, UNAPPLIED)
            del self._watchers[id(parameter)]

    def _take_alone(self, backward: int, watcher: Watcher, batches: dict[Batch, None], grad: torch.Tensor) -> None:
        """The usual case in one piece, as calls into cold code are what a step pays for: see `_accumulated`."""
        watcher.grad = (address_of(grad), grad._version)
        self._backward, self._fired = backward, [watcher]
        self._current, self._attribution = list(batches), EXACT
        self._forwarded, self._alone, self._aside, self._new_forward = {}, None, {}, False
        outstanding, pending = self._outstanding, watcher.pending
        if len(outstanding) > len(batches):
            self._pass_over_before(self._current[-1])
        for batch in batches:
            pending[batch] = EXACT
            if outstanding.pop(batch, 0) == 0:
                self._passed.pop(batch, None)

    def _contribute(self, watcher: Watcher, batches: Iterable[Batch], attribution: int) -> None:
        for batch in batches:
            watcher.pending.setdefault(batch, attribution)
            if self._outstanding.pop(batch, 0) == 0:
                self._passed.pop(batch, None)

    def _consume(self) -> None:
        """Decide which batches this backward pass is about: once a pass, however many parameters are watched."""
        backward = _current_graph_task_id()
        if backward == self._backward and backward != -1:
            return
        self._backward, self._fired = backward, []
        if self._reached:
            reached, self._reached = self._reached, {}
            self._recognised(reached)
            return
        if self._alone is not None:
            self._recognised(self._alone[1])
            return
        if backward != -1 and self._forwarded:
            # this pass has still to come through what was recognised
            self._current, self._attribution = list(self._declared), EXACT
            return
        if self._declared:
            self._recognised(self._declared)
            return
        if backward != -1 and self._attribution == EXACT and not self._new_forward:
            return  # another pass through the forward pass that was recognised
        candidates = self._candidates()
        if candidates:
            batch = candidates[0]
            self._attribution = SOLE if len(candidates) == 1 and not batch.iteration.ahead else FIFO
            self._guesses[batch.iteration.trains] += len(candidates) > 1
            for other in candidates[1:]:
                other.iteration.ahead |= other.is_whole  # no surer than this choice
            self._current, self._aside, self._new_forward = [batch], {}, False
            if len(candidates) > 1 and batch.number > candidates[1].number:
                self._pass_over_before(batch)
        elif backward != -1 or self._ended in self._passed:
            self._take_again()

    def _take_again(self) -> None:
        """No batch is in turn: a second pass over the same one, or over one that is out of turn, if there is any that
        was evaluated since or is still held."""
        held = (b for b in self._passed if b in self._aside or (b.iteration.trains and not b.is_let_go()))
        others = dict.fromkeys(held)
        self._attribution = FIFO if others else min(FIFO, max(SOLE, self._attribution))
        late = next((b for b in self._aside if b in others and b.iteration.trains), None)
        if late is not None:
            self._current = [late]
            del others[late]
        elif not self._current or any(b.is_recognised or b.is_behind() for b in self._current):
            self._attribution = STRAY  # a copy of the batch in hand, or what nobody delivered
            if self._ended is not None and self._ended in self._passed:
                self._current = [self._ended]
                others.pop(self._ended, None)
            self._count_guesses(self._current)
        self._count_guesses(others)

    def _recognised(self, batches: Iterable[Batch]) -> None:
        """The backward pass under way is about these batches for certain; those before them were skipped."""
        self._current, self._attribution = list(dict.fromkeys([*batches, *self._declared])), EXACT
        self._forwarded, self._alone, self._aside, self._new_forward = {}, None, {}, False
        if len(self._outstanding) > len(self._current):
            self._pass_over_before(self._current[-1])

    def _pass_over_before(self, last: Batch) -> None:
        """What the same pass over the loader delivered before this batch was skipped; of others what is done with."""
        of, number = last.iteration, last.number
        earlier = itertools.takewhile(lambda b: b.iteration is not of or b.number < number, self._outstanding)
        self._pass_over([b for b in earlier if b.iteration is of or b.is_done_with()])

    def _take_for(self, watcher: Watcher) -> None:
        """At a step: no watched parameter met the backward pass before it, so its batch is decided now."""
        self._backward, self._current = -1, []
        self._consume()
        self._contribute(watcher, self._current, self._attribution)

    def _candidates(self) -> list[Batch]:
        """The two batches that may be next, the likelier first; those of training loaders if there are any."""
        first = self._next_to_train() or list(itertools.islice(self._outstanding, 2))
        if len(first) == 2 and first[0].is_let_go():  # by the loop, which skipped it if it still holds the newest
            newest = next(reversed(self._outstanding))
            if newest.iteration is first[0].iteration and not newest.is_let_go():
                return [newest, first[0]]
        return first

    def _next_to_train(self) -> list[Batch]:
        """The first two of training loaders. One that was evaluated in a pass that is over stands behind another pass's
        where somebody holds it, and is out of turn where nobody does."""
        while True:
            trains = list(itertools.islice((b for b in self._outstanding if b.iteration.trains), 2))
            if len(trains) < 2:
                return trains
            first, second = trains
            if first.iteration is second.iteration or not (first.is_evaluated and first.iteration.is_over):
                return trains
            if not first.is_let_go():
                return [second, first]
            self._pass_over([first])

    def _set_aside(self, batches: list[Batch]) -> None:
        """They were evaluated: should the next update find no batch in turn, it may be of these all the same."""
        self._pass_over(batches)
        self._aside.update(dict.fromkeys(batches))

    def _pass_over(self, batches: Iterable[Batch]) -> None:
        """They are out of turn: what trains on one of them later must be recognised by its memory."""
        for batch in batches:
            if batch in self._outstanding:
                del self._outstanding[batch]
                self._passed[batch] = None

    def _drop(self, watcher: Watcher, status: int) -> None:
        """What contributed will not be applied. A parameter of no optimizer speaks only for what nobody settled."""
        owner = watcher.optimizer
        for batch, attribution in watcher.pending.items():
            if owner is not None or not batch.settled:
                self._settle(batch, owner.number if owner else NO_OPTIMIZER, NO_STEP, status, attribution)
        watcher.pending.clear()

    # -- update -------------------------------------------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._stepping = True
        known = self._optimizers.get(optimizer) or self._recognise(optimizer)
        if known is None:
            return
        parameter = known.watcher.parameter()
        if parameter is None or parameter.grad is None:  # this time the backward pass went through others only
            other = next((p for g in optimizer.param_groups for p in g["params"] if p.grad is not None), None)
            parameter = parameter if other is None else other
            if other is not None and (self._reached or not known.watcher.pending):
                self._take_for(known.watcher)
        elif self._forwarded and not known.watcher.pending:
            self._take_for(known.watcher)  # the backward pass went round all that was recognised
        known.moved = None if parameter is None else (weakref.ref(parameter), parameter._version)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._stepping = False
        known = self._optimizers.get(optimizer) or self._recognise(optimizer)  # unknown: its closure made the gradients
        if known is None:
            return
        pending = known.watcher.pending
        changed = bool(pending)
        if known.moved is not None:
            parameter = known.moved[0]()
            changed = parameter is not None and parameter._version != known.moved[1]
        if not changed and not (pending and is_fused(optimizer) and not skipped_inside(optimizer)):
            return  # nothing moved: what contributed waits for a later update, or is discarded
        known.steps += 1
        known.learning_rates = tuple([float(group["lr"]) for group in optimizer.param_groups])
        self._latest = known
        for batch, attribution in pending.items():
            self._settle(batch, known.number, known.steps, APPLIED, attribution)
        pending.clear()
        if self._discovery is not None and not self._look_on:
            self._discovery.remove()
            self._discovery = None
        self._look_on = False

    def _recognise(self, optimizer: torch.optim.Optimizer) -> KnownOptimizer | None:
        """First step of an optimizer: keep one watched parameter of it, or None where no traced batch reached it."""
        waits = self._outstanding or self._declared or self._reached or self._ended in self._passed
        if not (waits or self._watchers):
            return None
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        watchers = [w for p in parameters if (w := self._watchers.get(id(p))) is not None and w.parameter() is p]
        fired = [w for w in watchers if w.pending]
        if not fired:
            if not (parameters and waits):
                return None
            watcher = self._watch(parameters[0])  # no module led here: attribute at the step, watch from now on
            self._take_for(watcher)
            fired = [watcher]
            self._discover()
            self._look_on = True
        kept = fired[0]
        for other in watchers:
            if other is not kept:
                kept.pending.update(other.pending)
                other.handle.remove()
                parameter = other.parameter()
                self._watchers.pop(id(parameter), None)
        known = KnownOptimizer(next(self._numbers), kept, steps=self.first_step)
        kept.optimizer = known
        self._optimizers[optimizer] = known
        return known
