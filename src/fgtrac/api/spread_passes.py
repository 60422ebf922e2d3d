"""Factor passes given out to the workers of an engine: what they leave, the pass in this process takes up and names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from fgtrac.api.factor_passes import StatePass
from fgtrac.api.factor_units import FactorUnit, Job, digest_rows, file_digest, ids_digest, make_factors
from fgtrac.api.leftovers import remove_unnamed
from fgtrac.api.scored_rows import ScoredRows
from fgtrac.engine.units import Engine
from fgtrac.errors import ScoreError
from fgtrac.score.factor_files import State
from fgtrac.store.trace_dir import TraceDir


@dataclass(frozen=True, slots=True)
class Spread:
    """An engine, and the function FILE.py:FUNCTION that gives each of its workers the data and the model."""

    engine: Engine
    function: str

    @property
    def is_here(self) -> bool:
        """Whether this process is the only worker: it has data and model already."""
        return self.engine.name == "local:1"


def give_out(
    spread: Spread,
    trace: TraceDir,
    first: State,
    rows: Sequence[ScoredRows],
    passes: Sequence[StatePass],
    named: Set[str],
    rows_digest: Callable[[ScoredRows], bytes],
    advance: Callable[[int], None],
) -> None:
    """Have the workers make what no entry names of these passes, as far as it can be computed; they prepare theirs at
    the state `first`. `rows_digest` gives the SHA-256 of a role's rows file once it is in place; `advance` is told of
    rows done.

    ScoreError where the function gives a worker other data than it gives here: then no file of these states is left.
    EngineError where a worker does not see the trace, or is lost again and again.
    """
    digests = functools.cache(rows_digest)
    job = _job(spread, trace, first, rows, passes[0]) if passes else None
    missing = [(one, role) for one in passes for role in rows if one.missing(role, named)]
    units = [unit for one, role in missing if job for unit in _units(job, one, role, digests(role), named)]
    if len(units) < 2:
        return  # the pass in this process is as quick
    try:
        _collect(spread.engine, units, {role.role: role for role in rows}, advance)
    except ScoreError:
        for one in passes:
            remove_unnamed(trace, named, one.state.folder)
        raise


def _job(spread: Spread, trace: TraceDir, first: State, rows: Sequence[ScoredRows], one: StatePass) -> Job:
    file, _, name = spread.function.rpartition(":")
    function = f"{Path(file).resolve()}:{name}"
    spread.engine.check_shared(trace.path)
    how = (one.layers, one.dtype, one.batch_size, one.ggn)
    ids = tuple(map(ids_digest, rows))
    return Job(str(trace.path.resolve()), function, file_digest(function), first, *how, ids)


def _units(job: Job, one: StatePass, rows: ScoredRows, digest: bytes, named: Set[str]) -> list[FactorUnit]:
    """The units of a role at a state."""
    shards = tuple(one.parts(rows, digest, named))
    mine = frozenset(path for path in named if path.startswith(f"{one.state.folder}/"))
    if one.makes_matrix(rows, named):
        return [FactorUnit(job, one.state, shards, True, mine)]
    return [FactorUnit(job, one.state, (shard,), False, mine) for shard in shards]


def _collect(
    engine: Engine, units: Sequence[FactorUnit], rows: Mapping[str, ScoredRows], advance: Callable[[int], None]
) -> None:
    digest = functools.cache(lambda role, start, stop: digest_rows(rows[role], start, stop))
    for number, found in engine.results(make_factors, units, what="factor pass"):
        unit = units[number]
        if found is None:
            return  # the pass in this process comes to the same rows, and says which they are
        (_part, first), (_part, last) = unit.shards[0], unit.shards[-1]
        if found != digest(first.role, first.start, last.stop):
            raise ScoreError(
                f"the {first.role} data that {unit.job.function} gives a worker are not those that it gives here: let "
                "it give the same each time, without random augmentation, or score without --engine"
            )
        advance(unit.rows)
