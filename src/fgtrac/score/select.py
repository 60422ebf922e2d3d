"""Which model states are kept for scoring: rules over the validation loss, and the words that the log gives for them.

    improved:SHARE   the loss fell by at least this share of its value since the last one kept (the paper's way)
    budget:K         the fall since the checkpoint before is among the K steepest so far
    every:N          the first and every Nth after it
    all              every one

A rule decides without changing; what became of the decision it is told afterwards, live and from the log alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

RULES = "improved:SHARE (such as improved:0.01), budget:K, every:N, all"
FIRST = float("-inf")  # the fall of the first checkpoint: it is kept while there is room, and displaced before others

Mark = tuple[int, bytes]  # a checkpoint: its step, and the digest of its tensors


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to keep a checkpoint, the reason for the log, and the kept one that it displaces."""

    kept: bool
    words: str
    displaces: Mark | None = None


class Rule(Protocol):
    """How checkpoints are chosen while training goes on."""

    def decide(self, val_loss: float | None) -> Decision:
        """What to do with a checkpoint of this validation loss. ValueError where the rule needs one."""
        ...

    def note(self, mark: Mark | None, val_loss: float | None, kept: bool) -> None:
        """What was done with a checkpoint: just now, or in the log of a resumed run. `mark` is None where no state was
        saved. One that was kept and is told again as not kept has been displaced."""
        ...


class KeepImproved:
    """Keep a checkpoint where the validation loss fell by at least `share` of its value since the last one kept."""

    def __init__(self, share: float = 0.01) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"improved:{share:g} takes a share of the loss, from 0 up to but not 1")
        self.share = share
        self.best: float | None = None

    def decide(self, val_loss: float | None) -> Decision:
        """As the rule says. A checkpoint without a loss is always kept."""
        if val_loss is None:
            return Decision(True, "kept: no validation loss was given")
        if self.best is None:
            return Decision(True, "kept: the first with a validation loss")
        if val_loss <= self.best - self.share * abs(self.best):
            return Decision(True, f"kept: {val_loss:.6g} is at least {self.share:.3g} below {self.best:.6g}")
        return Decision(False, f"dropped: {val_loss:.6g} is not {self.share:.3g} below {self.best:.6g}")

    def note(self, mark: Mark | None, val_loss: float | None, kept: bool) -> None:
        """The loss of the newest kept one is what the next is compared with."""
        if kept and val_loss is not None:
            self.best = val_loss


class KeepSteepest:
    """Keep the `budget` checkpoints whose validation loss fell the most since the checkpoint before each."""

    def __init__(self, budget: int) -> None:
        if budget < 1:
            raise ValueError(f"budget:{budget} keeps no checkpoint; give at least 1")
        self.budget = budget
        self._last: float | None = None
        self._falls: dict[Mark, float] = {}  # of the kept ones, in order

    def decide(self, val_loss: float | None) -> Decision:
        """Falls are compared; of equal ones the earlier stays."""
        if val_loss is None:
            raise ValueError(f"budget:{self.budget} compares validation losses; pass val_loss= to checkpoint()")
        if self._last is None:
            return Decision(True, "kept: the first with a validation loss")
        fall = self._last - val_loss
        words = f"a fall of {fall:.6g} from {self._last:.6g}"
        if fall <= 0:
            return Decision(False, f"dropped: {val_loss:.6g} is not below {self._last:.6g}")
        if len(self._falls) < self.budget:
            return Decision(True, f"kept: {words} is among the {self.budget} steepest so far")
        least = min(reversed(self._falls), key=lambda mark: self._falls[mark])
        if fall > self._falls[least]:
            return Decision(True, f"kept: {words} is among the {self.budget} steepest so far", least)
        return Decision(False, f"dropped: {words} is not among the {self.budget} steepest so far")

    def note(self, mark: Mark | None, val_loss: float | None, kept: bool) -> None:
        """The loss that the next fall is measured from, and who holds a place."""
        if not kept and mark in self._falls:
            del self._falls[mark]  # displaced, which says nothing of the newest loss
            return
        if val_loss is None:
            return
        if kept and mark is not None:
            self._falls[mark] = FIRST if self._last is None else self._last - val_loss
        self._last = val_loss


class KeepEvery:
    """Keep the first checkpoint and every `n`th after it; with 1, all."""

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"every:{n} keeps no checkpoint; give at least 1")
        self.n = n
        self._seen = 0
        self._kept: set[Mark] = set()

    def decide(self, val_loss: float | None) -> Decision:
        """By the number of checkpoints so far."""
        if self.n == 1:
            return Decision(True, "kept: all are")
        kept = self._seen % self.n == 0
        return Decision(kept, f"{'kept' if kept else 'dropped'}: number {self._seen}; 1 in {self.n} is kept")

    def note(self, mark: Mark | None, val_loss: float | None, kept: bool) -> None:
        """One more, unless it is one that was displaced under another rule."""
        if kept or mark not in self._kept:
            self._seen += 1
        if kept and mark is not None:
            self._kept.add(mark)


_MADE: dict[str, Callable[[str], Rule]] = {
    "improved": lambda text: KeepImproved(float(text or 0.01)),
    "budget": lambda text: KeepSteepest(int(text)),
    "every": lambda text: KeepEvery(int(text)),
}


def parse_rule(text: str) -> Rule:
    """The rule of these words, as if no checkpoint had been seen. ValueError, with the rules there are, for others."""
    name, _, number = text.partition(":") if isinstance(text, str) else (repr(text), "", "")
    if text == "all":
        return KeepEvery(1)
    if name not in _MADE:
        raise ValueError(f"keep={text!r:.60} is no rule; choose one of {RULES}")
    try:
        return _MADE[name](number)
    except ValueError as error:
        raise ValueError(f"keep={text!r:.60} is no rule ({error}); choose one of {RULES}") from error


def choose_steepest(losses: Sequence[float | None], k: int) -> list[int]:
    """Which of the checkpoints with these validation losses (in the order of training) budget:K would have kept:
    ascending indices. ValueError where a loss is missing."""
    rule = KeepSteepest(k)
    chosen: set[int] = set()
    for number, loss in enumerate(losses):
        decision = rule.decide(loss)
        if decision.displaces is not None:
            chosen.discard(decision.displaces[0])
            rule.note(decision.displaces, None, False)
        rule.note((number, b""), loss, decision.kept)
        chosen |= {number} if decision.kept else set()
    return sorted(chosen)
