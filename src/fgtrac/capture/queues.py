"""The queues of delivered batches that wait for the update that uses them: in order, and no more than a limit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from fgtrac.capture.batch import Batch, Iteration

WAITING_LIMIT = 65_536  # batches in a queue, about 1 kB each
TOO_MANY = f"more than {WAITING_LIMIT} batches waited for an update at once, and the oldest are given up"


class Queues:
    """Batches in turn, and batches out of turn. `give_up` is told of each that has waited behind too many others."""

    def __init__(self, give_up: Callable[[Batch], None], limit: int = WAITING_LIMIT) -> None:
        self._give_up = give_up
        self.limit = limit
        self.outstanding: dict[Batch, None] = {}  # delivered, and next in order to be trained on
        self.passed: dict[Batch, None] = {}  # evaluated or passed over: an exact match can still claim these
        self.aside: dict[Batch, None] = {}  # passed over as evaluated, since the latest pass was decided
        self.ended: Batch | None = None  # the last full batch to train on whose body ended before it was used

    def consume(self, batch: Batch) -> None:
        """A backward pass is about it."""
        if self.outstanding.pop(batch, 0) == 0:
            self.passed.pop(batch, None)

    @property
    def waits_ended(self) -> bool:
        """Whether there is a full batch that was not used before its body ended."""
        return self.ended in self.passed

    def candidates(self) -> list[Batch]:
        """The two batches that may be next, the likelier first; those of training loaders if there are any."""
        first = self._next_to_train() or list(itertools.islice(self.outstanding, 2))
        if len(first) == 2 and first[0].is_let_go():  # by the loop, which skipped it if it still holds the newest
            newest = next(reversed(self.outstanding))
            if newest.iteration is first[0].iteration and not newest.is_let_go():
                return [newest, first[0]]
        return first

    def _next_to_train(self) -> list[Batch]:
        """The first two of training loaders. One that was evaluated in a pass that is over stands behind another pass's
        where somebody holds it, and is out of turn where nobody does."""
        while True:
            trains = list(itertools.islice((b for b in self.outstanding if b.iteration.trains), 2))
            if len(trains) < 2:
                return trains
            first, second = trains
            if first.iteration is second.iteration or not (first.is_evaluated and first.iteration.is_over):
                return trains
            if not first.is_let_go():
                return [second, first]
            self.pass_over([first])

    def evaluated(self) -> dict[Batch, None]:
        """The one batch of evaluation loaders that waits, if it is the only one."""
        found = list(itertools.islice((b for b in self.outstanding if not b.iteration.trains), 2))
        return dict.fromkeys(found if len(found) == 1 else ())

    def set_aside(self, batches: list[Batch]) -> None:
        """They were evaluated: should the next update find no batch in turn, it may be of these all the same."""
        self.pass_over(batches)
        self.aside.update(dict.fromkeys(batches))

    def pass_over(self, batches: Iterable[Batch]) -> None:
        """They are out of turn: what trains on one of them later must be recognised by its memory."""
        for batch in batches:
            if batch in self.outstanding:
                del self.outstanding[batch]
                self.passed[batch] = None
                batch.is_passed = True
        self.bound(self.passed)

    def pass_over_before(self, last: Batch) -> list[Batch]:
        """What the same pass over the loader delivered before this batch was skipped; of others what is done with."""
        if next(iter(self.outstanding), None) is last:
            return []  # the usual case of a loop that reads ahead
        of, number = last.iteration, last.number
        earlier = itertools.takewhile(lambda b: b.iteration is not of or b.number < number, self.outstanding)
        skipped = [b for b in earlier if b.iteration is of or b.is_done_with()]
        self.pass_over(skipped)
        return skipped

    def exhausted(self, iteration: Iteration) -> None:
        """The loader has no more batches: what an evaluation loader delivered is now out of turn, and what a training
        loader did where it was evaluated and let go, and a full batch, whose loop's body has ended."""
        mine = [b for b in self.outstanding if b.iteration is iteration]
        self.set_aside([b for b in mine if not iteration.trains or (b.is_done_with() and not b.is_whole)])
        for batch in [b for b in mine if b.is_whole and iteration.trains]:
            self.pass_over([batch])
            self.ended = batch

    def take_of(self, loader: int) -> list[Batch]:
        """What still waits of a loader, but for passes that are followed; it waits no more."""
        waits = [*self.passed, *self.outstanding]
        left = [b for b in waits if b.iteration.loader == loader and not b.iteration.is_followed]
        for batch in left:
            self.consume(batch)
        return left

    def take_all(self) -> list[Batch]:
        """What still waits, which waits no more."""
        left = [*self.passed, *self.outstanding]
        for waiting in (self.passed, self.outstanding, self.aside):
            waiting.clear()
        return left

    def bound(self, waiting: dict[Batch, None]) -> None:
        """Give up what waits behind too many others in one of the queues."""
        while len(waiting) > self.limit:
            oldest = next(iter(waiting))
            del waiting[oldest]
            self.aside.pop(oldest, None)
            self._give_up(oldest)
