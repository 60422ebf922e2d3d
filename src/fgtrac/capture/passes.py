"""Which delivered batches a backward pass is about, and how surely that is known."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any

import torch
from torch._C import _current_graph_task_id

from fgtrac.capture.batch import Batch, Guesses, Iteration
from fgtrac.capture.hops import Hops
from fgtrac.capture.memory import LEAVES, BatchMemory
from fgtrac.capture.parts import Part, Rows, Seen, add, rows_copied
from fgtrac.capture.queues import Queues
from fgtrac.capture.tensors import address_of, tensors_in
from fgtrac.events.schema import ATTRIBUTION

EXACT, SOLE, FIFO = ATTRIBUTION["exact"], ATTRIBUTION["sole"], ATTRIBUTION["fifo"]
STRAY = max(ATTRIBUTION.values()) + 1  # fifo, and perhaps of data that nobody delivered
LEFT = "updates were given to batches by their order, and some are left"


class Passes:
    """Forward passes whose input lies in delivered batches' memory, and the backward passes that come through them.

    `reach` is called as a backward pass comes through an output; an output is kept until then or until the next
    delivery, whichever comes first.
    """

    def __init__(self, queues: Queues, reach: Callable[[Seen], None], doubt: Callable[[str], None]) -> None:
        self._reach = reach
        self._doubt = doubt
        self.queues = queues
        self.memory = BatchMemory()
        self.looks_away = False  # what happens now is no part of the training
        self.declared: dict[Batch, None] = {}  # what a framework's hook says that the next passes are about
        self.is_told = False  # by such hooks: what is not declared is about what is recognised, or about nothing
        self.is_overruled = False  # memory knew a forward pass to be about others than those declared
        self.has_unknown = False  # since they were declared: a forward pass of which nothing was recognised
        self.forwarded: Seen = {}  # recognised, and no backward pass has come through their outputs
        self.alone: tuple[Any, Seen] | None = None  # the only such forward pass: its output, its batches
        self.called: list[int] = [0]  # root modules that were given what is recognised, or what was computed from it
        self._explained: list[int] = []  # the same, of the pass that `current` is about
        self._is_mixed = False  # since a pass was decided, a root module was given what nobody delivered
        self.reached: Seen = {}  # by a backward pass that has met no watched parameter yet
        self._reached_by = -1
        self.has_strangers = False  # of a loader that nobody watches
        self._follows = False  # outputs tell: of a loop that fetches behind a forward pass, or makes several
        self._thread = 0  # of the latest forward pass of which something was recognised
        self.current: list[Batch] = []
        self.parts: dict[Batch, Rows] = {}  # of these, where the backward pass came through some of their rows
        self._copied: list[list[torch.Size]] = []  # what models were given that was not recognised, since the last one
        self.attribution = FIFO
        self.is_again = False  # no batch was in turn: another pass over those of the pass before
        self.guesses = Guesses()
        self._unused: dict[Batch, None] = {}  # held when last seen, out of the queues, and no update was made of them
        self._holds_others = False  # than `current`, which was taken again
        self.backward = -1  # the backward pass that `current` is about
        self.new_forward = False  # since then, or a delivery

    @property
    def waits(self) -> bool:
        """Whether there is a batch that an update may be about."""
        return bool(self.queues.outstanding or self.declared or self.queues.waits_ended)

    @property
    def takes(self) -> bool:
        """Whether an update of which nothing was recognised may be of a batch."""
        return bool(self.declared) if self.is_told else self.waits

    @property
    def in_hand(self) -> list[Batch]:
        """The batches of the last forward pass where its input was recognised, else the next one in order."""
        waiting = self.queues.candidates()[:1] if self.new_forward else []
        return list(self.forwarded or self.declared) or waiting or self.current

    def deliver(self, iteration: Iteration, positions: array[int], data: Any, hops: Hops | None) -> Batch:
        """A watched loader hands over a batch."""
        batch = Batch(iteration, iteration.delivered, positions, hops=hops, guesses=self.guesses)
        iteration.delivered += 1
        outstanding = self.queues.outstanding
        if outstanding and not iteration.ahead:
            iteration.ahead = any(b.iteration is iteration for b in outstanding)
        others = bool(outstanding)
        outstanding[batch] = None
        if len(outstanding) > self.queues.limit:
            self.queues.bound(outstanding)
        if (self.alone is not None or self.forwarded) and get_ident() == self._thread:
            if self.alone is not None:  # its backward pass may still come, among others: let its output tell
                self._follow(*self.alone)
            self.forwarded, self.alone = {}, None  # where another thread reads beside the loop, they stay
        self.new_forward = True
        self.memory.take(batch, data, outstanding, others)
        return batch

    # -- forward ------------------------------------------------------------------------------------------------

    def evaluate(self, batches: Seen) -> None:
        """A model saw them without gradients; where none was recognised, perhaps the one evaluation batch there is."""
        seen = batches or self.declared or self.queues.evaluated()
        for batch in seen:
            batch.is_evaluated = True
        self.queues.set_aside([b for b in seen if not b.iteration.trains])  # others are often trained on thereafter

    def forward(self, output: Any, batches: Seen, root: int, given: Iterable[torch.Tensor]) -> None:
        """A root module returned what a backward pass may come through, of what it was given; let that tell whether it
        does."""
        self.new_forward = True
        self.reached = {}  # by a pass that accumulated nothing, such as torch.autograd.grad
        if not batches:
            self.has_unknown = True
            self._pass_unknown(root, given)
            return
        if self.forwarded:
            self.called.append(root)
        else:
            self.called = [root]
        if self.declared:
            if batches.keys().isdisjoint(self.declared):
                self.is_overruled = True
            else:
                batches.update({batch: None for batch in self.declared if batch not in batches})
        before, self.forwarded = self.forwarded, {**self.forwarded, **batches}
        if not before and not self._follows:
            for batch in batches:
                if not batch.iteration.trains:
                    break
            else:  # the usual case: a backward pass now is about it, and no hook is needed
                self.alone, self._thread = (output, batches), get_ident()
                return
        first, self.alone = self.alone, None
        for out, known in ((output, batches), *((first,) if first else ())):
            self._follow(out, known)
        self._thread = get_ident()

    def _pass_unknown(self, root: int, given: Iterable[torch.Tensor]) -> None:
        """Nobody delivered what a root module was given: another one made it of the batch, or it is something else."""
        if len(self._copied) < LEAVES:
            self._copied.append([tensor.shape for tensor in given if address_of(tensor)])  # not in a vmap
        if self.forwarded and any(tensor.grad_fn is not None for tensor in given):
            self.called.append(root)
            return
        self._is_mixed = True
        for batch in self.current:
            self.leave(batch)

    def part_graphs(self, batches: Seen) -> None:
        """A graph's memory tells that a full batch is trained on only where no batch of node numbers, say, may be what
        goes over the same graph: leave out those where one is, and say that it is a guess where both wait."""
        outstanding = self.queues.outstanding
        known = [b for b in batches if b.hops is None]
        other = known[0] if known else next((b for b in outstanding if b.hops is None), None)
        if other is None:
            return
        for batch in [b for b in batches if b.is_whole]:
            waits = batch in outstanding
            if known and waits and batch.iteration.trains:
                continue  # both may be in one loss
            del batches[batch]
            if waits:
                batch.iteration.ahead = other.iteration.ahead = True
                self._count_guesses((batch, other))
        self.memory.forget_graphs(outstanding)

    def _count_guesses(self, batches: Iterable[Batch]) -> None:
        """One of them was chosen, or none, where it could have been another."""
        kinds = {b.iteration.trains for b in batches}
        self._guess(chosen=True in kinds, evaluated=False in kinds)

    def _guess(self, **kinds: bool) -> None:
        self.guesses = Guesses(*(n + kinds.get(kind, False) for kind, n in self.guesses._asdict().items()))

    def leave(self, batch: Batch) -> None:
        """It waits no more, and no update was made of it so far."""
        if batch.iteration.trains and not batch.is_used and not batch.is_let_go():
            self._unused[batch] = None
            if len(self._unused) % 64 == 0:
                self._forget_unused()

    def _forget_unused(self) -> None:
        self._unused = {b: None for b in self._unused if not b.is_used and not b.is_let_go()}

    def _doubt_unused(self) -> None:
        """A pass may be about any that is held: also about those that no update was made of."""
        if self._unused:
            self._forget_unused()
        for batch in [b for b in self._unused if b not in self.current]:
            batch.is_doubtful = True  # should it end unused
            if batch.settled:
                self._doubt(LEFT)

    def _follow(self, output: Any, batches: Seen) -> None:
        """Several forward passes wait for a backward pass: let it tell which outputs it comes through."""
        self._follows = True
        for leaf in tensors_in(output)[:LEAVES]:
            if leaf.grad_fn is not None:
                leaf.grad_fn.register_prehook(lambda _grads: self._reach(batches))

    # -- backward -----------------------------------------------------------------------------------------------

    def reach(self, batches: Seen) -> bool:
        """A backward pass came through an output that was computed from these batches: whether the pass has met
        watched parameters already, so that `current` has grown."""
        backward = _current_graph_task_id()
        if backward == self.backward and backward != -1:
            self.recognise(_together({batch: self.parts.get(batch) for batch in self.current}, batches))
            return True
        if backward != self._reached_by:
            self.reached, self._reached_by = {}, backward
        _together(self.reached, batches)
        return False

    def begin(self, backward: int, batches: Seen, pending: dict[Batch, int]) -> None:
        """The usual case of `consume` in one piece, as calls into cold code are what a step pays for: one forward pass
        was recognised, and this backward pass is the first thing behind it. They are added to `pending`."""
        self.backward = backward
        self.current, self.parts, self.attribution, self.is_again = list(batches), {}, EXACT, False
        self.forwarded, self.alone, self.queues.aside, self.new_forward = {}, None, {}, False
        self._explained = self.called
        outstanding, passed = self.queues.outstanding, self.queues.passed
        for batch, rows in batches.items():
            if rows is None:
                pending[batch] = EXACT
            else:
                self.parts[batch], pending[batch] = rows, Part(rows, EXACT)
            if outstanding.pop(batch, 0) == 0:
                passed.pop(batch, None)
        if outstanding or self._is_mixed:
            self._look_around()

    def _look_around(self) -> None:
        """What was recognised may not be all that this pass is about."""
        if any(b not in self.current for b in self.queues.outstanding):
            for skipped in self.queues.pass_over_before(self.current[-1]):
                if skipped.iteration.trains and not (self.declared or skipped.is_done_with()):
                    skipped.is_doubtful = self.guesses.beside > skipped.guesses.beside or not skipped.is_let_go()
            beside = any(b.iteration.trains and b not in self.current for b in self.queues.outstanding)
            self._guess(beside=beside and not self.declared)
        if self._is_mixed:
            self._is_mixed = False
            if not self.declared:
                self._guess(mixed=True)
                self._doubt_unused()

    def _explains(self, called: list[int], roots: Iterable[int] | None) -> bool:
        return roots is None or not set(called).isdisjoint(roots)

    def consume(self, backward: int, roots: Iterable[int] | None = None) -> bool:
        """Decide which batches this backward pass is about: once a pass, however many parameters are watched. Returns
        whether it has been decided now; -1 is an update that no backward pass is known of. `roots` are the root modules
        of the parameter that it has met: what these were not given, it is about only if it comes through that; None
        where they are not known."""
        if backward == self.backward and backward != -1:
            return False
        self.backward, self.parts = backward, {}
        if self.alone is not None and not self.reached and not self._explains(self.called, roots):
            self._follow(*self.alone)
            self.alone = None
        if self.reached:
            reached, self.reached = self.reached, {}
            self.recognise(reached)
        elif self.alone is not None:
            self.recognise(self.alone[1])
        elif backward != -1 and self.forwarded:  # it has still to come through what was recognised
            self.current = [] if self.is_overruled else list(self.declared)
            self.attribution, self.is_again = EXACT, False
        elif self.declared:
            self.recognise(self.declared)
        elif (
            backward == -1
            or self.attribution != EXACT
            or self.new_forward
            or not self._explains(self._explained, roots)
        ):
            if self.is_told:
                self.current, self.attribution, self.is_again = [], EXACT, False
            else:
                self._take_next(backward)
                found = {batch: rows_copied(self._copied, batch) for batch in self.current if self._copied}
                self.parts = {batch: rows for batch, rows in found.items() if rows is not None}
        self._copied = []
        return True

    def recognise(self, batches: Seen | dict[Batch, None]) -> None:
        """The backward pass under way is about these batches for certain; those before them were skipped."""
        self.parts = {batch: rows for batch, rows in batches.items() if rows is not None}
        found = dict.fromkeys(batches)
        if not self.declared.keys().isdisjoint(found):
            found.update(self.declared)
        self.current, self.attribution = list(found), EXACT
        if self.alone is not None and not self.alone[1].keys() <= set(self.current):
            self._follow(*self.alone)  # for a backward pass of its own
        self.forwarded, self.alone, self.queues.aside = {}, None, {}
        self.new_forward = self.is_again = False
        self._explained = self.called
        if self.queues.outstanding or self._is_mixed:
            self._look_around()

    def _take_next(self, backward: int) -> None:
        """Nothing was recognised: it is about the batch in turn."""
        queues = self.queues
        candidates = queues.candidates()
        if not candidates:
            if backward != -1 or queues.waits_ended:
                self.take_again()
            return
        batch = next((b for b in candidates if b not in self.forwarded), candidates[0])
        holds_others = self.memory.holds_another((batch,), (queues.outstanding, queues.passed))
        self.attribution = SOLE if len(candidates) == 1 and not batch.iteration.ahead and not holds_others else FIFO
        if len(candidates) > 1 or holds_others:
            self._count_guesses((batch,))
        for other in candidates[1:]:
            other.iteration.ahead |= other.is_whole  # no surer than this choice
        self.current, self.queues.aside = [batch], {}
        self.new_forward = self.is_again = False
        self._is_mixed = False
        self._doubt_unused()
        if len(candidates) > 1 and batch.number > candidates[1].number:
            self.queues.pass_over_before(batch)

    def take_again(self, is_stray: bool = False) -> None:
        """No batch is in turn: a second pass over the same one, or over one that is out of turn, if there is any that
        was evaluated since or is still held; it `is_stray` where it may as well be of none of them."""
        queues = self.queues
        held = (b for b in queues.passed if b in queues.aside or (b.iteration.trains and not b.is_let_go()))
        others = dict.fromkeys(held)
        self._is_mixed, self.parts = False, {}
        self._holds_others = self.memory.holds_another(self.current, (queues.outstanding, queues.passed))
        is_guess = bool(others) or self._holds_others
        self.attribution = FIFO if is_guess else min(FIFO, max(SOLE, self.attribution))
        late = next((b for b in queues.aside if b in others and b.iteration.trains), None)
        self.is_again = late is None
        if late is not None:
            self.current = [late]
            del others[late]
        elif not self.current or any(b.is_behind() or (b.recognised_by and queues.waits_ended) for b in self.current):
            self.attribution = STRAY
            if queues.ended is not None and queues.waits_ended:
                self.current = [queues.ended]
                others.pop(queues.ended, None)
            self._count_guesses(self.current)
        if is_stray:
            self.attribution = STRAY
        self._count_guesses(others)
        self._doubt_unused()

    def sureness(self, batch: Batch, optimizer: int) -> int:
        """How surely `current` is right for one optimizer. Where no batch was in turn, and an update of it was surely
        made of this batch already, or was made and others are held, this pass is of a copy, or of what nobody
        delivered."""
        is_made = optimizer in batch.recognised_by or (self._holds_others and optimizer in batch.guessed_by)
        if self.is_again and is_made:
            return STRAY
        rows = self.parts.get(batch)
        return self.attribution if rows is None or self.attribution == STRAY else Part(rows, self.attribution)


def _together(seen: Seen, batches: Seen) -> Seen:
    for batch, rows in batches.items():
        add(seen, batch, rows)
    return seen
