"""The matrix of scores as units of work: a part of the training rows toward all targets, group by group, in a file.

A process opens the trace and makes the targets ready once; it computes with one thread, so that the bytes are the same
wherever a part is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fgtrac.api.targets import Target, prepare_targets, target_groups
from fgtrac.errors import ScoreError
from fgtrac.score.cache import Cache
from fgtrac.score.kernel import Prepared
from fgtrac.score.methods import Method
from fgtrac.score.one_thread import one_thread

HELD_GROUPS = 2  # of prepared targets; where there are more, they are made ready anew for each part

Ready = Callable[[], Iterable[tuple[list[int], list[Prepared]]]]


@dataclass(frozen=True, slots=True)
class MatrixJob:
    """A query: as `write_matrix` was given it, and the text that it has for it (query.json)."""

    trace: str
    targets: tuple[str | tuple[str, ...], ...]
    method: Method
    checkpoints: tuple[int, ...] | None
    rows_a_part: int
    folder: str
    query: str


@dataclass(frozen=True, slots=True)
class PartUnit:
    """The part of that number: rows `start` up to `stop`."""

    job: MatrixJob
    part: int
    start: int
    stop: int


def write_part_of(unit: PartUnit) -> int:
    """Write the part, and give its number of rows. ScoreError where the trace does not hold here what it holds for the
    caller."""
    from fgtrac.api.matrix import write_part

    with one_thread():
        cache, ready, count = _ready(unit.job)
        write_part(cache, ready(), Path(unit.job.folder), unit.part, unit.start, unit.stop, count)
    return unit.stop - unit.start


def hold_ready(cache: Cache, targets: Sequence[Target], method: Method) -> Ready:
    """Gives targets made ready, which are held where they are few."""
    if len(list(target_groups([cache], targets, method))) > HELD_GROUPS:
        return lambda: prepare_targets(cache, targets, method)
    held = list(prepare_targets(cache, targets, method))
    return lambda: held


@lru_cache(maxsize=1)
def _ready(job: MatrixJob) -> tuple[Cache, Ready, int]:
    from fgtrac.api.matrix import query_text
    from fgtrac.api.trace import open_trace

    explainer = open_trace(job.trace)._explainer
    cache = explainer.cache(job.checkpoints)
    resolved = explainer.resolve(cache, job.targets)
    if query_text(explainer, cache, resolved, job.method, job.rows_a_part, by_engine=True) != job.query:
        raise ScoreError(f"{job.trace} has other factors or samples at a worker than where the scores were asked for")
    return cache, hold_ready(cache, resolved, job.method), len(resolved)
