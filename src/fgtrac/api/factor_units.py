"""Factor passes as units of work: one shard of samples at one model state, made by any process that sees the trace.

A unit's files are those that a pass in one process would write, under the same names and unnamed by the log; whoever
gave the units out takes them up as what an interrupted pass has left. A process calls the user's function once, and
keeps its data, its model and the state that is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgtrac.api.factor_passes import Files, StatePass
from fgtrac.api.given_data import GivenData, secrets_of
from fgtrac.api.ledger import read_state
from fgtrac.api.prior import run_entry
from fgtrac.api.scored_rows import ScoredRows, chosen_places
from fgtrac.api.unseen import copied
from fgtrac.api.user_functions import load_function
from fgtrac.capture.checkpoint import load_state
from fgtrac.errors import ScoreError
from fgtrac.score.factor_files import ShardHead, State, losses_path, shard_path
from fgtrac.score.factors import FactorPass
from fgtrac.score.gradients import Layer
from fgtrac.score.one_thread import one_thread
from fgtrac.score.untouched import untouched
from fgtrac.store.trace_dir import TraceDir


@dataclass(frozen=True, slots=True)
class Job:
    """What all units of one scoring share. `function` is FILE.py:FUNCTION with the SHA-256 `source` of the file;
    `first` is the state that the pass is prepared at, `ids` the SHA-256 over the ids of each role's rows, with their
    number."""

    trace: str
    function: str
    source: str
    first: State
    layers: tuple[Layer, ...]
    dtype: str
    batch_size: int
    ggn: bool
    ids: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True, slots=True)
class FactorUnit:
    """Shards (number, head) of one role at one state: one of them, or with the Gauss-Newton matrix, which is a sum over
    all training rows, the whole role. What the log has `named` is not made again."""

    job: Job
    state: State
    shards: tuple[tuple[int, ShardHead], ...]
    is_whole: bool
    named: frozenset[str]

    @property
    def rows(self) -> int:
        """How many it goes over."""
        return sum(head.stop - head.start for _part, head in self.shards)


def make_factors(unit: FactorUnit) -> str | None:
    """Write the unit's files, and give the digest of what its data set gave for a few of the rows (`digest_rows`); None
    where the pass cannot be computed, of which a pass in the caller's own process says more.

    ScoreError where the function gives other data here than there; whatever the function raises.
    """
    with one_thread():
        ready = _ready(unit.job)
        try:
            return ready.make(unit)
        except ScoreError:
            return None


def file_digest(function: str) -> str:
    """SHA-256 of FILE.py of FILE.py:FUNCTION."""
    return hashlib.sha256(Path(function.rpartition(":")[0]).read_bytes()).hexdigest()


def check_file(function: str, source: str) -> None:
    """ScoreError where the file of FILE.py:FUNCTION has another SHA-256 here."""
    if (here := file_digest(function)) != source:
        raise ScoreError(
            f"{function} is another file at this worker: SHA-256 {here[:16]}... and not {source[:16]}...; "
            "copy the same one to every node"
        )


def ids_digest(rows: ScoredRows) -> tuple[str, int, str]:
    """The role, number and SHA-256 over the ids of some rows."""
    return rows.role, len(rows), hashlib.sha256(rows.ids.tobytes()).hexdigest()


def digest_rows(rows: ScoredRows, start: int, stop: int) -> str:
    """SHA-256 of the numbers and texts in a batch of a few of these rows."""
    sha = hashlib.sha256()

    def take(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            sha.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        if isinstance(value, np.ndarray) and value.dtype != object:
            sha.update(f"{value.dtype} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes())
        elif isinstance(value, Mapping):
            take([*value.items()])
        elif isinstance(value, list | tuple):
            sha.update(f"{len(value)} ".encode())
            for one in value:
                take(one)
        elif isinstance(value, str | bytes | int | float | None):
            sha.update(repr(value).encode())

    take(rows.some(start, stop)[1])
    return sha.hexdigest()


class _Ready:
    """The data and the model of a job in this process, and the state that the model is in."""

    def __init__(self, job: Job) -> None:
        self._job, self._trace = job, TraceDir.open(Path(job.trace))
        check_file(job.function, job.source)
        with secrets_of(self._trace) as secrets:
            given = GivenData(self._trace, run_entry(self._trace)["id_scheme"], secrets, digests=False)
            self._model = copied(load_function(job.function)(given))
        self._rows = {said[0]: self._checked(given, *said) for said in job.ids}
        self._load(job.first)
        train = self._rows["train"]
        with untouched(self._model):
            batch = next(iter(train.batches(0, len(train), job.batch_size)))
            self._factors = FactorPass.prepare(self._model, batch, **given.how, layer=job.layers, hessians=job.ggn)

    def make(self, unit: FactorUnit) -> str:
        if unit.state != self._loaded:
            self._load(unit.state)
        job, (_part, head) = self._job, unit.shards[0]
        rows, files = self._rows[head.role], Files(self._trace)
        how = (job.layers, head.learning_rates, job.dtype, job.batch_size, job.ggn)
        one = StatePass(unit.state, self._factors, *how, lambda _rows, row: f"row {row}")
        with untouched(self._model):
            if unit.is_whole:
                one.run(rows, head.rows, files, unit.named, lambda more: None)
            for part, each in () if unit.is_whole else unit.shards:
                path = shard_path(each, part)
                there = unit.named & {path, losses_path(path)}
                if there or not one.is_ours(rows, each, path, self._trace):
                    one.write(rows, each, part, files, there, lambda more: None)
        return digest_rows(rows, unit.shards[0][1].start, unit.shards[-1][1].stop)

    def _load(self, state: State) -> None:
        load_state(self._model, read_state(self._trace, state), f"the checkpoint of step {state.step}")
        self._loaded = state

    def _checked(self, given: GivenData, role: str, count: int, digest: str) -> ScoredRows:
        """The rows of a role, which must be those that the caller has."""
        rows = given.rows.get(role)
        if rows is not None and role == "train" and count < len(rows):  # factors="sample:N"
            chosen = chosen_places(len(rows), count)
            rows = replace(rows, positions=rows.positions[chosen], ids=rows.ids[chosen])
        if rows is None or ids_digest(rows)[1:] != (count, digest):
            words = "none" if rows is None else f"{len(rows):,} others"
            raise ScoreError(
                f"{self._job.function} gives {words} for {count:,} {role} samples when a worker calls it: let it give "
                "the same each time (seed what it draws), or score without --engine"
            )
        return rows


@lru_cache(maxsize=1)
def _ready(job: Job) -> _Ready:
    return _Ready(job)
