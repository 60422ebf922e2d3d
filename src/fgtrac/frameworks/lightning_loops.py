"""Which batch a loop of Lightning's Trainer has in hand: those of the pass that it reads itself, in order.

Hooks may read the same loader, or another one around the same data, at any time: their passes are not the loop's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fgtrac.capture.batch import Batch, Iteration
from fgtrac.capture.watches import Watch


@dataclass(eq=False, slots=True)
class Followed:
    """One loader of one stage, and every one that Lightning makes anew in its place; what is `waiting` was delivered,
    and no step has begun with it. Batches of nothing (a collate function gave None) begin no step."""

    data: Any
    watch: Watch
    is_read: Callable[[Iteration], bool]  # whether the Trainer's own loop reads that pass
    waiting: deque[tuple[Batch, bool]] = field(default_factory=deque)
    iteration: Iteration | None = None  # the pass that the loop reads

    def take(self, batch: Batch, data: Any) -> Any:
        """A batch is delivered; to the Trainer's loop, or to a hook that reads the same data."""
        if batch.iteration is not self.iteration:
            if not self.is_read(batch.iteration):
                return data
            if self.iteration is not None and not self.iteration.is_over:
                self.waiting.clear()  # of the pass that was left for this one no step will be about what was read ahead
            self.watch.grounding.follow(batch.iteration, None if self.waiting else self.iteration)
            self.iteration = batch.iteration
        self.waiting.append((batch, data is None))
        return data

    def let_go(self) -> None:
        """The loop has ended."""
        self.watch.opener = None
        self.waiting.clear()
        if self.iteration is not None:
            self.iteration.is_followed, self.iteration = False, None

    def next(self, *, alone: bool) -> Batch | None:
        """The batch that the step now beginning is about; where the loader is not `alone`, steps have nothings too."""
        while self.waiting:
            batch, is_nothing = self.waiting.popleft()
            if not (alone and is_nothing):
                return batch
        return None


def reads(loop: Any, iteration: Iteration) -> bool:
    """Whether a pass is one of those that a loop of the Trainer has under way. An iterator may lie in another one, as
    PyG's does."""
    combined = getattr(loop._combined_loader, "_iterator", None)
    for iterator in getattr(combined, "iterators", ()):
        pairing = getattr(getattr(iterator, "iterator", iterator), "_fgtrac", None)
        if pairing is not None and pairing.iteration is iteration:
            return True
    return False
