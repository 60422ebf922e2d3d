"""The factors of one model state: passes over the rows of each role, files on disk, and then the entries that name
them.

Nothing is named before all of a state is there. A pass that fails removes its files. One that is killed or interrupted
leaves whole shards that no entry names: the next one goes on behind them where they are what it would make itself, and
removes them where they are not. What is named is not made again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from fgtrac.api.checkpoints import say_file
from fgtrac.api.ledger import Ledger
from fgtrac.api.leftovers import are_close, find_losses, find_unnamed, is_matrix, remove_unnamed
from fgtrac.api.scored_rows import ScoredRows
from fgtrac.capture.recorder import Recorder
from fgtrac.errors import ScoreError
from fgtrac.score.factor_files import (
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
from fgtrac.score.finite import NotFinite, SamplesNotFinite
from fgtrac.score.gauss_newton import GaussNewton
from fgtrac.score.gradients import Gradients, Layer, concatenate
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir

Advance = Callable[[int], None]  # rows that a pass has gone over


@dataclass(slots=True)
class Files:
    """Files in the trace that are not yet named by its log: path -> (SHA-256, size, words about it). `found` counts
    those that an earlier pass left."""

    trace: TraceDir
    written: dict[str, tuple[bytes, int, str]] = field(default_factory=dict)
    found: int = 0

    def write(self, path: str, data: bytes, about: str) -> None:
        """Put a file in place. OSError where the disk refuses."""
        durable.write_file(self.trace.path / path, data)
        self.written[path] = (hashlib.sha256(data).digest(), len(data), about)

    def take(self, path: str, about: str) -> None:
        """One that lies there already."""
        with (self.trace.path / path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            self.written[path] = (digest, file.seek(0, os.SEEK_END), about)
        self.found += 1

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


@dataclass(frozen=True, slots=True, eq=False)
class StatePass:
    """A pass at one model state: which rows, how their gradients are written down, and as which numbers.

    It goes on at the shard where an earlier one was cut off. With `ggn` it begins a role anew: the matrix is a sum over
    all training rows, which are gone over again as long as it is not there.
    """

    state: State
    factors: FactorPass
    layers: tuple[Layer, ...]
    learning_rates: tuple[float, ...]
    dtype: str
    batch_size: int
    ggn: bool
    name_of: Callable[[ScoredRows, int], str]

    def missing(self, rows: ScoredRows, named: Set[str]) -> bool:
        """Whether some file of these rows at this state is not named yet."""
        return not self._paths(rows) <= named

    def done(self, rows: ScoredRows, there: Set[str]) -> int:
        """How many rows need no pass where these files are there."""
        if self.makes_matrix(rows, there):
            return 0
        shards = [(head, shard_path(head, part)) for part, head in enumerate(self._heads(rows, b""))]
        return sum(head.stop - head.start for head, path in shards if {path, losses_path(path)} <= there)

    def run(self, rows: ScoredRows, digest: bytes, files: Files, named: Set[str], advance: Advance) -> None:
        """Write what is missing: shards, their losses, and for training rows the Gauss-Newton matrix where it is asked
        for; take what an earlier pass left, and remove what it left that does not fit. `digest` is that of the rows
        file. `advance` is told of rows gone over; of fewer than none where what was left does not fit.

        ScoreError for NaN and infinity, with a count over all rows and the first sample.
        """
        left = set(find_unnamed(files.trace, named, self.state.folder))
        kept = self._fitting(rows, digest, files.trace, named, left)
        advance(self.done(rows, named | kept) - self.done(rows, named | left))
        mine = self._names(rows)
        remove_unnamed(files.trace, named | kept, self.state.folder, lambda path: not path.startswith(mine))
        for path in sorted(kept):
            files.take(path, self._about(rows, path))
        self._run(rows, digest, files, named | kept, advance)

    def makes_matrix(self, rows: ScoredRows, there: Set[str]) -> bool:
        """Whether a pass over these rows has a Gauss-Newton matrix to make."""
        return not set(self._matrix_path(rows)) <= there

    def _run(self, rows: ScoredRows, digest: bytes, files: Files, there: Set[str], advance: Advance) -> None:
        """Write the files that are not there."""
        matrix = GaussNewton(self.layers[0]) if self.makes_matrix(rows, there) else None
        for part, head in enumerate(self._heads(rows, digest)):
            path = shard_path(head, part)
            if matrix is None and {path, losses_path(path)} <= there:
                continue
            passes = self.write(rows, head, part, files, there, advance)
            if matrix is not None:
                _add(matrix, passes)
        if matrix is not None:
            path = ggn_path(self.state)
            files.write(path, encode_ggn({matrix.layer.name: matrix.mean()}), self._about(rows, path))

    def write(
        self, rows: ScoredRows, head: ShardHead, part: int, files: Files, there: Set[str], advance: Advance
    ) -> list[Pass]:
        """Write one shard and its losses, but for what is there; the passes that they are from."""
        path = shard_path(head, part)
        passes = list(self._passes(rows, head.start, head.stop, advance))
        if (beside := losses_path(path)) not in there:
            losses = np.concatenate([p.losses for p in passes])
            files.write(beside, encode_losses(losses), self._about(rows, beside))
        if path not in there:
            files.write(path, self._shard(rows, head, passes), self._about(rows, path))
        return passes

    def parts(self, rows: ScoredRows, digest: bytes, named: Set[str]) -> list[tuple[int, ShardHead]]:
        """The shards that are not named yet with their losses: where the matrix is to be made, all of them."""
        is_whole = self.makes_matrix(rows, named)
        each = [(part, head, shard_path(head, part)) for part, head in enumerate(self._heads(rows, digest))]
        return [(part, head) for part, head, path in each if is_whole or not {path, losses_path(path)} <= named]

    def _fitting(self, rows: ScoredRows, digest: bytes, trace: TraceDir, named: Set[str], left: Set[str]) -> set[str]:
        """Those of the files that were left which this pass would make itself."""
        kept: set[str] = set()
        matrix = set(self._matrix_path(rows)) - named
        if not matrix <= left:
            return kept
        for part, head in enumerate(self._heads(rows, digest)):
            path = shard_path(head, part)
            pair = {path, losses_path(path)}
            if not pair <= named and pair <= named | left and self.is_ours(rows, head, path, trace):
                kept |= pair & left
        if matrix and not (
            self.done(rows, named | kept | matrix) == len(rows)
            and all(is_matrix(trace, path, self.layers[0]) for path in matrix)
        ):
            return set()
        return kept | matrix

    def is_ours(self, rows: ScoredRows, head: ShardHead, path: str, trace: TraceDir) -> bool:
        """Whether a shard is what its head should be, and a few of its rows still have the losses beside it."""
        then = find_losses(trace, path, head, self.dtype)
        if then is None:
            return False
        some, batch = rows.some(head.start, head.stop)
        try:
            now = self.factors(batch).losses
        except ScoreError:
            return False  # the pass itself will say so
        return are_close(now, then[some - head.start])

    def _paths(self, rows: ScoredRows) -> set[str]:
        shards = [shard_path(head, part) for part, head in enumerate(self._heads(rows, b""))]
        return {*shards, *map(losses_path, shards), *self._matrix_path(rows)}

    def _names(self, rows: ScoredRows) -> tuple[str, ...]:
        """How the paths of these rows' files at this state begin."""
        matrix = (ggn_path(self.state),) if rows.role == "train" else ()
        return (f"{self.state.folder}/{rows.role}-", f"{self.state.folder}/losses-{rows.role}-", *matrix)

    def _about(self, rows: ScoredRows, path: str) -> str:
        """What the log says of a file."""
        where = f"at the model state of step {self.state.step}"
        if path == ggn_path(self.state):
            return f"Gauss-Newton matrix of the training samples {where}"
        what = "losses" if path.startswith(f"{self.state.folder}/losses-") else "gradients"
        return f"{what} of {rows.role} samples {where}"

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
        return SamplesNotFinite(count, len(rows), rows.role, self.state.step, self.name_of(rows, first))

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
