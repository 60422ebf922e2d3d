"""Updates as the log tells them: what no recording writes is wrong; what a loop may do, and an order does not show, is
doubtful and counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.codec import encode
from fgtrac.events.ranks import RankTable
from fgtrac.events.schema import STATUS, decode_event

_KINDS = tuple(encode("kind") + encode(kind) for kind in ("use", "resume", "checkpoint", "join"))
_APPLIED = STATUS["applied"]

Numbers = NDArray[np.uint64]  # (n,): steps, or batches as epoch * 2^32 + batch


@dataclass(slots=True)
class Updates:
    """What was `wrong`, in words, what is `doubtful` because the log alone cannot explain it, and what there was."""

    wrong: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    applied: int = 0  # batches
    updates: int = 0
    unused: int = 0  # batches that are in the log and took part in no update
    ranks: int = 0  # that made the updates together, at most
    is_uneven: bool = False  # not always so many

    @property
    def words(self) -> str:
        """How many batches took part in how many updates, and how many in none."""
        told = f"{counted(self.applied, 'batch', 'es')} took part in {counted(self.updates, 'update')}"
        told += f" on {'up to ' * self.is_uneven}{self.ranks} ranks" if self.ranks else ""
        none = f"{counted(self.unused, 'delivered batch', 'es')} in none, as the log says"
        return f"{told}, and {none}" if self.unused else told


@dataclass(slots=True)
class _Taken:
    """What one optimizer of one process took from one loader: the batches, and the step of each, as they come."""

    batches: list[Numbers] = field(default_factory=list)
    steps: list[Numbers] = field(default_factory=list)


def counted(n: int, what: str, plural: str = "s") -> str:
    """A number and what it counts: "1 batch", "2 batches"."""
    return f"{n} {what}" if n == 1 else f"{n} {what}{plural}"


def read_updates(entries: Iterable[tuple[int, bytes]]) -> Updates:
    """Read the `use` entries. A recording counts the updates of each optimizer from the step it began at, and writes
    them as they come; a plain loop leaves none out, and uses each batch once and in the order of delivery."""
    found = _Reading()
    for number, entry in entries:
        if any(words in entry for words in _KINDS):
            event = decode_event(entry)
            take = {"use": found.take_use, "resume": found.take_resume, "checkpoint": found.take_checkpoint}
            take["join"] = found.take_join
            if event["kind"] in take:  # and not words that only look like it
                take[event["kind"]](number, event)
    return found.finish()


class _Reading:
    def __init__(self) -> None:
        self._result = Updates()
        self._begins: dict[bytes, int] = {}  # writer -> the step that it goes on from
        self._resumes: list[tuple[int, int, set[bytes]]] = []  # entry, step, the writers before
        self._last: dict[tuple[Any, ...], int] = {}  # of each sequence of entries that is written in order
        self._taken: dict[tuple[bytes, int, int], _Taken] = {}  # writer, optimizer, loader
        self._all: dict[tuple[bytes, int], list[Numbers]] = {}  # writer, loader
        self._ranks = RankTable()
        self._kept: dict[bytes, tuple[int, int]] = {}  # writer -> the latest step of a kept state, its entry

    def take_join(self, number: int, event: Mapping[str, Any]) -> None:
        self._ranks.add(event)
        self._begins[event["writer"]] = event["step"]

    def take_resume(self, number: int, event: Mapping[str, Any]) -> None:
        self._begins[event["writer"]] = event["step"]
        self._resumes.append((number, event["step"], {bytes(writer) for writer, _seq in event["writers"]}))

    def take_checkpoint(self, number: int, event: Mapping[str, Any]) -> None:
        if event["kept"]:
            self._kept[event["writer"]] = max(self._kept.get(event["writer"], (0, 0)), (event["step"], number))

    def take_use(self, number: int, event: Mapping[str, Any]) -> None:
        writer, loader, optimizer = event["writer"], event["loader"], event["optimizer"]
        batches = event["epoch"].astype(np.uint64) << np.uint64(32) | event["batch"]
        self._all.setdefault((writer, loader), []).append(np.unique(batches))
        applied = event["status"] == _APPLIED
        steps = event["step"][applied]
        if not len(steps):
            return
        if not optimizer:
            self._result.wrong.append(f"entry {number} has batches in updates of no optimizer")
        begin, kind = self._begins.get(writer, 0), (writer, loader, optimizer, event["block"], "losses" in event)
        if steps.min() <= begin:
            said = f"entry {number} has update {steps.min()} of optimizer {optimizer}"
            self._result.wrong.append(f"{said}, and its process counts them from {begin + 1}")
        before = np.concatenate([np.array([self._last.get(kind, 0)], np.uint64), steps[:-1]])
        back = np.flatnonzero(steps < before)
        if len(back):
            said = f"entry {number} has update {steps[back[0]]} of optimizer {optimizer} behind update"
            self._result.wrong.append(f"{said} {before[back[0]]}: updates are written in the order they were made in")
        self._last[kind] = int(steps[-1])
        taken = self._taken.setdefault((writer, optimizer, loader), _Taken())
        taken.batches.append(batches[applied])
        taken.steps.append(steps)

    def finish(self) -> Updates:
        """Put together what belongs together, and count what a plain loop would not do."""
        result, again, astray = self._result, _Found(), _Found()
        made: dict[tuple[bytes, int], list[Numbers]] = {}
        used: dict[tuple[bytes, int], list[Numbers]] = {}
        for (writer, optimizer, loader), taken in self._taken.items():
            batches, steps = (np.concatenate(column) for column in (taken.batches, taken.steps))
            order = np.lexsort((steps, batches))
            batches, steps = batches[order], steps[order]
            made.setdefault((writer, optimizer), []).append(np.unique(steps))
            is_first = np.append(True, batches[1:] != batches[:-1])
            later = np.flatnonzero(~is_first & np.append(False, steps[1:] != steps[:-1]))  # not a part of the same use
            again.take(batches[later], steps[later], loader, optimizer)
            batches, steps = batches[is_first], steps[is_first]
            late = np.flatnonzero(steps < np.maximum.accumulate(steps))
            astray.take(batches[late], steps[late], loader, optimizer)
            used.setdefault((writer, loader), []).append(batches)
        last = dict(self._begins)
        together: dict[Any, list[Numbers]] = {}  # the ranks of a training make each update together
        for (writer, optimizer), some in made.items():
            steps = np.unique(np.concatenate(some))
            together.setdefault((self._ranks.training(writer), optimizer), []).append(steps)
            last[writer] = max(last.get(writer, 0), int(steps[-1]))
            self._look_for_holes(writer, optimizer, steps)
        self._look_at_ends(last)
        result.updates = sum(len(np.unique(np.concatenate(some))) for some in together.values())
        result.ranks = self._ranks.count
        result.is_uneven = any(len(self._ranks.together(writer)) < result.ranks for writer, _optimizer in made)
        for keeper, (step, number) in self._kept.items():
            for writer in self._ranks.together(keeper):
                if step > last.get(writer, 0):
                    said = f"a state kept at update {step} (entry {number}) and no batch "
                    said += f"of rank {self._ranks.rank(writer)} " if writer != keeper else ""
                    result.doubtful.append(f"{said}in an update after {last.get(writer, 0)}")
        if lacking := self._ranks.lacking:
            result.doubtful.append(f"nothing of {counted(lacking, 'rank')} that should have joined")
        result.applied = sum(len(np.unique(np.concatenate(some))) for some in used.values())
        result.unused = sum(len(np.unique(np.concatenate(some))) for some in self._all.values()) - result.applied
        if again.count:
            said = f"{counted(again.count, 'use')} of a batch that the optimizer had used before"
            result.doubtful.append(f"{said} (the first: {again.first})")
        if astray.count:
            result.doubtful.append(
                f"{counted(astray.count, 'use')} out of the order of delivery (the first: {astray.first})"
            )
        return result

    def _look_at_ends(self, last: Mapping[bytes, int]) -> None:
        """A run goes on from an update that it made, in every rank; and ranks make their updates together."""
        trainings: dict[Any, list[bytes]] = {}
        for writer in last:
            trainings.setdefault(self._ranks.training(writer), []).append(writer)
        for writers in trainings.values():
            resume = next((one for one in self._resumes if not one[2].isdisjoint(writers)), None)
            reached = {writer: last[writer] for writer in writers}
            step = max(reached.values()) if resume is None else resume[1]
            for writer, end in sorted(reached.items(), key=lambda one: (one[1], one[0])):
                if end < step and (resume is not None or len(writers) > 1):
                    who = f"of {words.removesuffix(', ')} " if (words := self._ranks.words(writer)) else ""
                    what = f"rank {self._rank_at(reached, step)} ends with update {step}"
                    if resume is not None:
                        what = f"the run goes on from update {step} (entry {resume[0]})"
                    self._result.doubtful.append(f"{what} and no batch {who}in an update after {end} before")

        for number, step, before in self._resumes:
            if step and before.isdisjoint(last):
                self._result.doubtful.append(
                    f"the run goes on from update {step} (entry {number}) and no batch in any update before"
                )

    def _rank_at(self, reached: Mapping[bytes, int], step: int) -> int | None:
        return next((self._ranks.rank(writer) for writer, end in reached.items() if end == step), None)

    def _look_for_holes(self, writer: bytes, optimizer: int, steps: Numbers) -> None:
        """Updates that were counted, and have no batch in the log."""
        begin = self._begins.get(writer, 0)
        lacking = int(steps[-1]) - begin - len(steps)
        if lacking > 0:
            at = int(np.argmax(steps != begin + 1 + np.arange(len(steps), dtype=np.uint64)))
            said = f"{counted(lacking, 'update')} of optimizer {optimizer} without a batch in the log"
            self._result.doubtful.append(f"{said} (the first: update {begin + 1 + at})")


@dataclass(slots=True)
class _Found:
    """Uses of batches of which something is said: how many, and the first in words."""

    count: int = 0
    first: str = ""

    def take(self, batches: Numbers, steps: Numbers, loader: int, optimizer: int) -> None:
        """Count uses of one optimizer."""
        self.count += len(batches)
        if len(batches) and not self.first:
            where = f"loader {loader}, epoch {int(batches[0]) >> 32}, batch {int(batches[0]) & 0xFFFFFFFF}"
            self.first = f"{where}, in update {steps[0]} of optimizer {optimizer}"
