"""The matrix of scores as units of work: a part of the training rows toward all targets, group by group, in a file.

A process opens the trace and makes the targets ready once; it computes with one thread, so that the bytes are the same
wherever a part is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fgtrac.api.questions import Question, open_question
from fgtrac.api.targets import Target, prepare_targets, target_groups
from fgtrac.score.cache import Cache
from fgtrac.score.kernel import Prepared
from fgtrac.score.methods import Method
from fgtrac.score.one_thread import one_thread

HELD_GROUPS = 2  # of prepared targets; where there are more, they are made ready anew for each part

Ready = Callable[[], Iterable[tuple[list[int], list[Prepared]]]]


@dataclass(frozen=True, slots=True)
class PartUnit:
    """The part of that number, in `folder`: rows `start` up to `stop`."""

    question: Question
    folder: str
    part: int
    start: int
    stop: int


def write_part_of(unit: PartUnit) -> int:
    """Write the part, and give its number of rows. ScoreError where the trace does not hold here what it holds for the
    caller."""
    from fgtrac.api.matrix import write_part

    with one_thread():
        opened, ready = open_question(unit.question), _ready(unit.question)
        write_part(opened.cache, ready(), Path(unit.folder), unit.part, unit.start, unit.stop, len(opened.targets))
    return unit.stop - unit.start


def hold_ready(cache: Cache, targets: Sequence[Target], method: Method) -> Ready:
    """Gives targets made ready, which are held where they are few."""
    if len(list(target_groups([cache], targets, method))) > HELD_GROUPS:
        return lambda: prepare_targets(cache, targets, method)
    held = list(prepare_targets(cache, targets, method))
    return lambda: held


@lru_cache(maxsize=1)
def _ready(question: Question) -> Ready:
    opened = open_question(question)
    return hold_ready(opened.cache, opened.targets, question.method)
