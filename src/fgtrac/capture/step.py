"""Grounding: which delivered batches took part in which applied optimizer update, and how sure we are.

A batch goes delivered -> contributed (a gradient was accumulated from it) -> applied | discarded | unapplied.
The signals are PyTorch's own: a forward hook on the root module (does its input lie in a delivered batch's memory?
then a backward pass through its output is about that batch), a post-accumulate hook on one or two parameters of each
optimizer, and the global hooks around `Optimizer.step`.
Nothing here draws random numbers or touches a tensor's values.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fgtrac.capture.batch import Batch, Iteration
from fgtrac.capture.contributions import BY_HAND, NO_OPTIMIZER, UNAPPLIED, Contributions, Doubt
from fgtrac.capture.hops import Hops
from fgtrac.capture.parts import Part
from fgtrac.capture.passes import EXACT, FIFO, SOLE, STRAY, Passes
from fgtrac.capture.queues import TOO_MANY, Queues
from fgtrac.capture.root_modules import Roots
from fgtrac.capture.strangers import Strangers
from fgtrac.capture.tensors import tensors_in
from fgtrac.capture.updates import APPLIED, Updates
from fgtrac.events.schema import NO_STEP

Settle = Callable[..., None]  # batch, optimizer, step, status, attribution, losses


class Grounding:
    """The state machine of one run. `settle` receives every batch once for each fate it meets; `doubt` hears of updates
    that are perhaps of no delivered batch, with what can be done about them."""

    def __init__(self, settle: Settle, doubt: Doubt, *, first_step: int = 0) -> None:
        self._report = settle
        self.looks_away = False  # what happens now is `unseen`
        self.is_open = True
        self.strangers = Strangers(doubt)
        self._doubt = doubt
        self._queues = Queues(self._give_up)
        self._passes = Passes(self._queues, lambda batches: self._contributions.reach(batches), doubt)
        self._contributions = Contributions(self._passes, self._settle, doubt)
        self._roots = Roots(self._passes, self._contributions, self._after_forward)
        self._updates = Updates(self._passes, self._contributions, self._roots, self._settle, first_step)

    def new_optimizer_number(self) -> int:
        """For an optimizer that is none of torch's."""
        return next(self._updates.numbers)

    @property
    def first_step(self) -> int:
        """The resumed-from step."""
        return self._updates.first_step

    @property
    def step(self) -> int:
        """Applied updates of the optimizer that stepped last; the resumed-from step before the first."""
        return self._updates.step

    @property
    def greatest_step(self) -> int:
        """Applied updates of the optimizer that made the most; the resumed-from step before the first."""
        return self._updates.greatest_step

    @property
    def updates_made(self) -> int:
        """Of all optimizers together, in this process."""
        self._updates.read()
        return self._updates.made

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The learning rates, one a parameter group, in force at the last applied update of each optimizer; the one
        that stepped last first."""
        return self._updates.learning_rates

    def learning_rate_of(self, parameter: torch.Tensor) -> float | None:
        """The learning rate of one parameter, in force at the last applied update; None where no optimizer that has
        stepped under trace holds it."""
        return self._updates.learning_rate_of(parameter)

    def stepped(self, parameters: Iterable[torch.Tensor] | None = None) -> None:
        """An update was just made by other means than a `torch.optim.Optimizer`, of these parameters: by default of all
        that no such optimizer holds."""
        self._updates.stepped(parameters)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """What models compute meanwhile is no part of the training: it is not looked at."""
        before = self.looks_away
        self.looks_away = self._passes.looks_away = True
        try:
            yield
        finally:
            self.looks_away = self._passes.looks_away = before

    @property
    def current(self) -> list[Batch]:
        """The batches of the last forward pass where its input was recognised, else the next one in order."""
        return self._passes.in_hand

    def deliver(self, iteration: Iteration, positions: array[int], data: Any, hops: Hops | None = None) -> Batch:
        """A watched loader hands over a batch; in a graph `hops` are its neighbours."""
        if self._roots.seeks:
            self._roots.delivered(iteration.loader)
        elif not iteration.delivered and iteration.trains:
            self._roots.begins(iteration)
        return self._passes.deliver(iteration, positions, data, hops)

    def deliver_stranger(self, data: Any, kind: str) -> None:
        """A loader that nobody watches, over a data set of that kind, delivers a batch."""
        self.strangers.take(data, kind)
        if not self._passes.has_strangers:
            self._passes.has_strangers = True
            self._roots.seek()

    def declare(self, batches: Iterable[Batch] = ()) -> None:
        """A framework's own hook says which delivered batches the forward and backward passes from now on are about,
        all of them together, until it says otherwise: these are `exact`, also where the model is given copies. What is
        recognised by its memory overrules it.

        It holds up to the update. No batches end it: what follows is about what is recognised, up to the next one.
        """
        passes = self._passes
        if passes.declared and passes.is_overruled and passes.has_unknown:
            self._doubt("a step was given other batches than the one that it was declared to be about")
        passes.is_overruled = passes.has_unknown = False
        passes.declared = dict.fromkeys(batches)
        passes.is_told |= bool(passes.declared)

    def declare_no_more(self) -> None:
        """The framework's loop has ended: from now on batches are in turn, as in a plain loop."""
        self.declare()
        self._passes.is_told = False

    def follow(self, iteration: Iteration, before: Iteration | None) -> None:
        """A framework's loop reads this pass, and no more of the one `before`."""
        iteration.is_followed = True
        if before is not None:
            before.is_followed = False
            self.restarted(before.loader)

    def exhausted(self, iteration: Iteration) -> None:
        """The loader has no more batches."""
        iteration.is_over = True
        self._passes.memory.end(iteration)
        self._queues.exhausted(iteration)

    def restarted(self, loader: int) -> None:
        """A new pass over the loader begins: what the earlier ones left outstanding was never used."""
        for batch in self._queues.take_of(loader):
            self._settle(batch, NO_OPTIMIZER, NO_STEP, UNAPPLIED)
        if self._passes.declared:
            still = [b for b in self._passes.declared if b.iteration.loader != loader or b.iteration.is_followed]
            self._passes.declared = dict.fromkeys(still)

    def close(self) -> None:
        """Remove every hook; settle what is left as unapplied."""
        self.is_open = False
        self._updates.close()
        self.declare()
        by_hand = self._roots.close()
        self._contributions.close()
        for batch in self._queues.take_all():
            self._settle(batch, NO_OPTIMIZER, NO_STEP, UNAPPLIED)
        self._passes.memory.clear()
        if by_hand:
            self._doubt(*BY_HAND)

    def _settle(self, batch: Batch, optimizer: int, step: int, status: int, attribution: int | None = None) -> None:
        if status == APPLIED and attribution == EXACT:  # the usual case
            batch.settled = True
            batch.is_doubtful = False
            if optimizer not in batch.recognised_by:
                batch.recognised_by += (optimizer,)
            self._report(batch, optimizer, step, status, attribution, batch.losses)
            return
        if status == APPLIED:
            batch.is_doubtful = False
        else:
            self._leave(batch, status, is_left=attribution is None)
        batch.settled = True
        if attribution is None:
            attribution = FIFO if batch.iteration.ahead else SOLE
        is_known = attribution == EXACT or (isinstance(attribution, Part) and attribution.sure == EXACT)
        if status == APPLIED and is_known and optimizer not in batch.recognised_by:
            batch.recognised_by += (optimizer,)
        if status == APPLIED and not is_known and optimizer not in batch.guessed_by:
            batch.guessed_by += (optimizer,)
        if attribution == STRAY:
            attribution = FIFO
            if status == APPLIED:
                self._doubt("an update followed no delivered batch")
        self._report(batch, optimizer, step, status, int(attribution), batch.losses)

    def _leave(self, batch: Batch, status: int, is_left: bool) -> None:
        """It is settled without an update; perhaps it `is_left` as it was delivered."""
        if batch.is_used:
            batch.is_doubtful = False
            return
        if status == UNAPPLIED and not batch.settled:
            now = self._passes.guesses
            if not is_left:  # it was recognised, or taken in turn
                now = batch.guesses._replace(chosen=now.chosen, evaluated=now.evaluated)
            batch.is_doubtful |= batch.is_left_in_doubt(now)
        self._passes.leave(batch)

    def _give_up(self, batch: Batch) -> None:
        self._doubt(TOO_MANY)
        self._settle(batch, NO_OPTIMIZER, NO_STEP, UNAPPLIED)

    def _after_forward(
        self, module: torch.nn.Module, root: int, args: Any, kwargs: dict[str, Any], output: Any
    ) -> None:
        """Look the call's inputs up in the batches' memory; let a backward pass through its outputs tell us."""
        if self.looks_away:
            return
        passes = self._passes
        if self._roots.seeks:
            self._roots.leave(module)
        given = args
        if kwargs or len(args) != 1 or not isinstance(args[0], torch.Tensor):
            given = tensors_in((*args, *kwargs.values()))
        batches = passes.memory.batches_of(given)
        if not torch.is_grad_enabled():
            passes.evaluate(batches)
            return
        if batches and passes.memory.has_graphs:
            passes.part_graphs(batches)
        self._contributions.look()
        passes.forward(output, batches, root, given)
        if self.strangers.known:
            self.strangers.look(given, output)
        if not batches:
            self._roots.look_behind(module, given)
