"""The factors of one model state: passes over the rows of each role, files on disk, and then the entries that name
them.

Nothing is named before all of it is there: a pass that fails or is killed leaves files that no entry names, which are
removed, at once or when scoring goes on. What is named with the right digest is not made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fgtrac.api.checkpoints import say_file
from fgtrac.api.ledger import Ledger
from fgtrac.api.scored_rows import ScoredRows
from fgtrac.capture.recorder import Recorder
from fgtrac.errors import ScoreError
from fgtrac.score.factor_files import (
    FOLDER,
    ShardHead,
    State,
    encode_ggn,
    encode_losses,
    encode_shard,
    ggn_path,
    losses_path,
    shard_path,
    shard_rows,
)
from fgtrac.score.factors import FactorPass, Pass
from fgtrac.score.finite import NotFinite
from fgtrac.score.gauss_newton import GaussNewton
from fgtrac.score.gradients import Floats, Gradients, Layer, concatenate
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir

Advance = Callable[[int], None]  # rows that a pass has gone over


@dataclass(slots=True)
class Files:
    """Files written into the trace and not yet named by its log: path -> (SHA-256, size, words about it)."""

    trace: TraceDir
    written: dict[str, tuple[bytes, int, str]] = field(default_factory=dict)

    def write(self, path: str, data: bytes, about: str) -> None:
        """Put a file in place. OSError where the disk refuses."""
        durable.write_file(self.trace.path / path, data)
        self.written[path] = (hashlib.sha256(data).digest(), len(data), about)

    def name_all(self, recorder: Recorder, ledger: Ledger) -> int:
        """Their entries, in the order of writing; the bytes of all."""
        for path, said in self.written.items():
            say_file(recorder, ledger, path, *said)
        return sum(size for _digest, size, _about in self.written.values())

    def remove(self) -> None:
        """Take them away again."""
        for path in self.written:
            durable.remove(self.trace.path / path)
            durable.remove_empty((self.trace.path / path).parent, self.trace.path)
        self.written.clear()


def remove_unnamed(trace: TraceDir, ledger: Ledger) -> None:
    """Files of factors that a killed process left before it named them."""
    named = ledger.scored_files()
    folder = trace.path / FOLDER
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and str(path.relative_to(trace.path)) not in named:
            durable.remove(path)
            durable.remove_empty(path.parent, trace.path)


@dataclass(frozen=True, slots=True, eq=False)
class StatePass:
    """A pass at one model state: which rows, how their gradients are written down, and as which numbers."""

    state: State
    factors: FactorPass
    layers: tuple[Layer, ...]
    learning_rates: tuple[float, ...]
    dtype: str
    batch_size: int
    ggn: bool
    name_of: Callable[[ScoredRows, int], str]

    def missing(self, rows: ScoredRows, named: set[str]) -> bool:
        """Whether some file of these rows at this state is not named yet."""
        paths = [shard_path(head, part) for part, head in enumerate(self._heads(rows, b""))]
        return not {*paths, losses_path(self.state, rows.role), *self._matrix_path(rows)} <= named

    def run(self, rows: ScoredRows, digest: bytes, files: Files, named: set[str], advance: Advance) -> None:
        """Write what is missing: shards, losses, and for training rows the Gauss-Newton matrix where it is asked for.
        `digest` is that of the rows file.

        ScoreError for NaN and infinity, with a count over all rows and the first sample.
        """
        losses: list[Floats] = []
        whole = not {losses_path(self.state, rows.role), *self._matrix_path(rows)} <= named
        matrix = GaussNewton(self.layers[0]) if self._matrix_path(rows) else None
        for part, head in enumerate(self._heads(rows, digest)):
            path = shard_path(head, part)
            if path in named and not whole:
                continue
            passes = list(self._passes(rows, head.start, head.stop, advance))
            losses += [p.losses for p in passes]
            if matrix is not None:
                _add(matrix, passes)
            if path not in named:
                words = f"gradients of {rows.role} samples at the model state of step {self.state.step}"
                files.write(path, self._shard(rows, head, passes), words)
        if (path := losses_path(self.state, rows.role)) not in named:
            words = f"losses of {rows.role} samples at the model state of step {self.state.step}"
            files.write(path, encode_losses(np.concatenate(losses)), words)
        if matrix is not None and (path := ggn_path(self.state)) not in named:
            words = f"Gauss-Newton matrix of the training samples at the model state of step {self.state.step}"
            files.write(path, encode_ggn({matrix.layer.name: matrix.mean()}), words)

    def _heads(self, rows: ScoredRows, digest: bytes) -> Iterator[ShardHead]:
        total, size = len(rows), shard_rows(self.layers, self.dtype)
        for start in range(0, total, size):
            where = (start, min(start + size, total), total)
            state = (self.state.digest, self.state.step, rows.role)
            yield ShardHead(*state, *where, digest, self.layers, self.learning_rates)

    def _matrix_path(self, rows: ScoredRows) -> tuple[str, ...]:
        return (ggn_path(self.state),) if self.ggn and rows.role == "train" else ()

    def _passes(self, rows: ScoredRows, start: int, stop: int, advance: Advance) -> Iterator[Pass]:
        at = start
        for batch in rows.batches(start, stop, self.batch_size):
            try:
                found = self.factors(batch)
            except NotFinite as error:
                raise self._not_finite(rows, range(at, min(stop, at + self.batch_size)), error) from error
            if len(found.losses) != (expected := min(stop, at + self.batch_size) - at):
                raise ScoreError(
                    f"{len(found.losses)} losses for {expected} samples; let the loss return one for each sample "
                    "(of words, for instance, from outputs (n, T, words) and targets (n, T))"
                )
            at += len(found.losses)
            advance(len(found.losses))
            yield found

    def _not_finite(self, rows: ScoredRows, where: range, error: NotFinite) -> ScoreError:
        """The error of a batch, once the rest of the rows has been gone over to count."""
        count, first = self._spoiled(rows, where, error)
        for start in range(where.stop, len(rows), self.batch_size):
            rest = range(start, min(len(rows), start + self.batch_size))
            try:
                for batch in rows.batches(rest.start, rest.stop, self.batch_size):
                    self.factors(batch)
            except NotFinite as more:
                count += self._spoiled(rows, rest, more)[0]
        return ScoreError(
            f"NaN or infinity in the factors of {count:,} of {len(rows):,} {rows.role} samples at step "
            f"{self.state.step}, the first is {self.name_of(rows, first)}: look at its data, or at the learning rate"
        )

    def _spoiled(self, rows: ScoredRows, where: range, error: NotFinite) -> tuple[int, int]:
        """How many rows of a batch, and the first: one by one where the pass could not tell."""
        if error.row is not None:
            return error.count, where.start + error.row
        found = []
        for row in where:
            try:
                self.factors(next(rows.batches(row, row + 1, 1)))
            except NotFinite:
                found.append(row)
        return (len(found), found[0]) if found else (len(where), where.start)

    def _shard(self, rows: ScoredRows, head: ShardHead, passes: Sequence[Pass]) -> bytes:
        gradients: list[Gradients] = [
            concatenate([p.gradients[number] for p in passes]) for number in range(len(self.layers))
        ]
        return encode_shard(head, gradients, self.dtype, lambda row: self.name_of(rows, row))


def _add(matrix: GaussNewton, passes: Sequence[Pass]) -> None:
    for found in passes:
        inputs = found.gradients[0].inputs
        assert inputs is not None
        assert found.hessians is not None
        matrix.add(inputs, found.hessians)
