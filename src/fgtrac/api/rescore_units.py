"""The check `scores` as units of work: some rows of a role at a committed model state, made anew and compared with it.

A process calls the verifier's function once, and computes with one thread. What differs is judged by whoever asked; and
what a worker cannot make, whoever asked makes, so that the words are those of one process. Needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.factor_tolerance import Difference, differences
from fgtrac.api.factor_units import check_file, file_digest
from fgtrac.api.remaking import Remaking, rows_at_once
from fgtrac.api.user_functions import load_function
from fgtrac.engine.units import Engine
from fgtrac.errors import FgtracError
from fgtrac.score.cache import Cache
from fgtrac.score.factor_files import FOLDER, State
from fgtrac.score.gradients import Gradients
from fgtrac.score.one_thread import one_thread
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.checks import CannotTell


@dataclass(frozen=True, slots=True)
class Remaker:
    """How a worker comes to data and model: the function FILE.py:FUNCTION, whose file has the SHA-256 `source`."""

    trace: str
    id_scheme: str
    function: str
    source: str


@dataclass(frozen=True, slots=True)
class RowsUnit:
    """Rows of a role at a state, by their numbers (int64). `artifacts` are the factor files of that state and those of
    rows: path and SHA-256, as the log says."""

    remaker: Remaker
    state: State
    artifacts: tuple[tuple[str, bytes], ...]
    role: str
    rows: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Of some rows what differs most in each, whether each has the label of the rows file, and the gradients that were
    made of them where they are training rows."""

    differences: list[Difference]
    labelled: list[bool]
    gradients: tuple[Gradients, ...]

    def __len__(self) -> int:
        return len(self.differences)


def compare_unit(unit: RowsUnit) -> Compared | None:
    """The rows of a unit; None where they cannot be made or read here. ScoreError where the file of the function is
    another."""
    check_file(unit.remaker.function, unit.remaker.source)
    try:
        with one_thread():
            cache = _cache(unit.remaker.trace, unit.state, unit.artifacts)
            rows = np.frombuffer(unit.rows, dtype=np.int64)
            (found,) = compare_rows(_remaking(unit.remaker), cache, unit.role, rows)
            return found
    except (CannotTell, FgtracError, OSError, ValueError, MemoryError):
        return None


def compare_rows(remaking: Remaking, cache: Cache, role: str, rows: NDArray[np.int64]) -> Iterator[Compared]:
    """Rows at the cache's one state, piece by piece in their order. Errors as `Remaking.remake` and `Cache.take`."""
    held, at = cache.rows(role), 0
    for remade in remaking.remake(cache.states[0], cache.layers, role, held, rows):
        some = rows[at : at + len(remade.gradients[0])]
        types = [cache.shard_of(0, role, row)[1] for row in some.tolist()]
        off = differences(cache.take(0, role, some), remade.gradients, remade.fine, remade.coarse, types)
        same = np.ones(len(some), np.bool_)
        if held.labels is not None and remade.labels is not None:
            same = held.labels[some] == remade.labels
        yield Compared(off, same.tolist(), remade.gradients if role == "train" else ())
        at += len(some)


@dataclass(frozen=True, slots=True)
class Comparing:
    """Has rows compared by the workers of an engine."""

    engine: Engine
    remaker: Remaker

    @classmethod
    def by(cls, engine: Engine, trace: TraceDir, id_scheme: str, function: str) -> Comparing:
        """EngineError where a worker does not see the trace."""
        engine.check_shared(trace.path)
        file, _, name = function.rpartition(":")
        full = f"{Path(file).resolve()}:{name}"
        return cls(engine, Remaker(str(trace.path.resolve()), id_scheme, full, file_digest(full)))

    def compare(
        self, here: Remaking, cache: Cache, artifacts: Mapping[str, bytes], role: str, rows: NDArray[np.int64]
    ) -> Iterator[Compared]:
        """As `compare_rows`, in the same pieces; `here` makes those rows that no worker made."""
        state, size = cache.states[0], rows_at_once(cache.layers)
        pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
        wanted = (f"{state.folder}/", f"{FOLDER}/rows-")
        files = tuple(sorted((path, sha) for path, sha in artifacts.items() if path.startswith(wanted)))
        units = [RowsUnit(self.remaker, state, files, role, piece.tobytes()) for piece in pieces]
        found: dict[int, Compared | None] = {}
        if len(units) > 1:
            found = dict(self.engine.results(compare_unit, units, what="scores made anew"))
        with one_thread():
            for number, piece in enumerate(pieces):
                compared = found.pop(number, None)
                yield from compare_rows(here, cache, role, piece) if compared is None else [compared]


@lru_cache(maxsize=1)
def _remaking(remaker: Remaker) -> Remaking:
    function = load_function(remaker.function)
    return Remaking(TraceDir.open(Path(remaker.trace)), {"id_scheme": remaker.id_scheme}, function)


@lru_cache(maxsize=1)
def _cache(trace: str, state: State, artifacts: tuple[tuple[str, bytes], ...]) -> Cache:
    return Cache(TraceDir.open(Path(trace)), dict(artifacts), [state])
