"""The factors of a trace, read as they are needed, without torch.

    artifacts/scoring/rows-ROLE-DIGEST8.safetensors         which sample each row is
    artifacts/scoring/STEP-DIGEST8/ROLE-PART.safetensors    some rows' gradients at one model state: a shard
    artifacts/scoring/STEP-DIGEST8/losses-ROLE-PART.safetensors     their losses
    artifacts/scoring/STEP-DIGEST8/ggn.safetensors          the Gauss-Newton matrix of each layer (optional)

Every file is an `artifact` of the log, and is compared with the digest that stands there when it is first opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError, ScoreError, TamperError
from fgtrac.score.factor_files import (
    FOLDER,
    ROWS_PATH,
    STATE_PATH,
    Rows,
    ShardHead,
    State,
    ggn_path,
    gradients_of,
    losses_of,
    losses_path,
    parse_head,
    parse_rows,
)
from fgtrac.score.gradients import Floats, Gradients, concatenate
from fgtrac.store.tensor_files import TensorFile, open_tensors
from fgtrac.store.trace_dir import TraceDir

KEEP_BYTES = 1 << 27
OPEN_FILES = 256  # each takes one of the process's file descriptors, of which there are often 1,024


@contextmanager
def naming(path: str) -> Iterator[None]:
    """A FormatError inside is one of this file."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


class Cache:
    """The factors of one trace, read as they are needed. `artifacts` is path -> SHA-256, as the log says; of `states`
    (in the order of training) those are used whose training factors are complete. Up to `keep_bytes` of what was read
    stay in memory as float32, so that the next query need not convert them.

    ScoreError where there are none, or where states were scored by different layers; TamperError where a file is not
    the one of the log.
    """

    def __init__(
        self,
        trace: TraceDir,
        artifacts: Mapping[str, bytes],
        states: Sequence[State],
        *,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self._trace = trace
        self._artifacts = artifacts
        self._files: dict[str, TensorFile] = {}
        self._heads: dict[str, ShardHead] = {}
        self._rows: dict[str, Rows] = {}
        self._converted: dict[str, tuple[Gradients, ...]] = {}
        self._room = keep_bytes
        self.kept: dict[Any, Any] = {}  # curvatures, by those who compute them
        self.curvatures: dict[Any, Path] = {}  # method -> a folder with those that somebody has computed for all
        self._shards = self._find_shards(states)
        self.states = tuple(s for s in states if self._complete(s, "train"))
        if not self.states:
            kept = f"{len(states)} kept checkpoints and factors of none" if states else "no kept checkpoint"
            raise ScoreError(
                f"{trace.path.name} has {kept}; record with run.score_with(...), or use fgtrac score --with"
            )
        self.layers = self._head(0, "train").layers
        for k, state in enumerate(self.states):
            if self._head(k, "train").layers != self.layers:
                raise ScoreError(
                    f"the states at steps {self.states[0].step} and {state.step} were scored by different layers; "
                    "choose checkpoints of one kind"
                )

    def _find_shards(self, states: Sequence[State]) -> dict[tuple[str, str], list[str]]:
        """(folder, role) -> paths of its shards, in order."""
        folders = {state.folder for state in states}
        found: dict[tuple[str, str], list[str]] = {}
        for path in sorted(self._artifacts):
            match = STATE_PATH.fullmatch(path)
            if match and match[1] in folders and match[3] and not match[2]:
                found.setdefault((match[1], match[3]), []).append(path)
        return found

    def _complete(self, state: State, role: str) -> bool:
        """Whether every row of a role has its factors at a state."""
        at, total, first = 0, None, None
        for path in self._shards.get((state.folder, role), ()):
            head = self._parse(path)
            if head.digest != state.digest or head.step != state.step or head.role != role:
                raise TamperError(f"{path} holds factors of another state or role than its name says")
            first = first or head
            if (head.rows, head.layers, head.learning_rates) != (first.rows, first.layers, first.learning_rates):
                raise TamperError(f"{path} is of other rows, layers or learning rates than the shard before it")
            if head.start != at or total not in (None, head.total):
                return False
            at, total = head.stop, head.total
        return total is not None and at == total

    def has(self, role: str) -> bool:
        """Whether every used state has factors of this role."""
        return all(self._complete(state, role) for state in self.states)

    def rows(self, role: str) -> Rows:
        """Which sample each row of a role is. ScoreError where the role has no factors."""
        if role not in self._rows:
            heads = [self._head(k, role) for k in range(len(self.states))]
            names = {hashes: p for p, hashes in self._artifacts.items() if ROWS_PATH.fullmatch(p)}
            if len({head.rows for head in heads}) != 1 or heads[0].rows not in names:
                raise ScoreError(f"the {role} factors of these states are not of the same rows; score them anew")
            with naming(names[heads[0].rows]):
                rows = parse_rows(self._open(names[heads[0].rows]))
            if len(rows) != heads[0].total:
                raise TamperError(f"{names[heads[0].rows]} has {len(rows)} rows and its factors have {heads[0].total}")
            self._rows[role] = rows
        return self._rows[role]

    def learning_rates(self, k: int) -> tuple[float, ...]:
        """Of each layer at state k, in force at its last update."""
        head = self._head(k, "train")
        self._open(self._shards[self.states[k].folder, "train"][0])  # not believed before its digest is
        return head.learning_rates

    def read(self, k: int, role: str, start: int, stop: int) -> tuple[Gradients, ...]:
        """Rows `start` up to `stop` of a role at state k: float32, one `Gradients` for each layer."""
        parts: list[tuple[Gradients, ...]] = []
        for path in self._shards[self.states[k].folder, role]:
            head = self._heads[path]
            first, last = max(start, head.start), min(stop, head.stop)
            if first < last:
                parts.append(self._gradients(path, head, slice(first - head.start, last - head.start)))
        if not parts:
            path = self._shards[self.states[k].folder, role][0]
            return self._gradients(path, self._heads[path], slice(0, 0))
        if len(parts) == 1:
            return parts[0]
        return tuple(concatenate([part[i] for part in parts]) for i in range(len(self.layers)))

    def take(self, k: int, role: str, rows: NDArray[np.int64]) -> tuple[Gradients, ...]:
        """Single rows of a role at state k, in the order of `rows`; nothing else is read."""
        order, parts, shards = [], [], self._shards[self.states[k].folder, role]
        for path in shards:
            head = self._heads[path]
            mine = np.flatnonzero((rows >= head.start) & (rows < head.stop))
            if len(mine):
                order.append(mine)
                parts.append(self._parsed(path, head, rows[mine] - head.start))
        if sum(map(len, order)) != len(rows):
            raise ValueError(f"of {len(rows)} rows {sum(map(len, order))} are among the {role} factors")
        if not parts:
            return self.read(k, role, 0, 0)
        back = np.argsort(np.concatenate(order), kind="stable")
        return tuple(concatenate([part[i] for part in parts]).rows(back) for i in range(len(self.layers)))

    def shard_of(self, k: int, role: str, row: int) -> tuple[str, str]:
        """The path of the file that holds a row's gradients at state k, and the type of its numbers ("F16", ...)."""
        for path in self._shards[self.states[k].folder, role]:
            if self._heads[path].start <= row < self._heads[path].stop:
                types = {tensor.type for tensor in self._open(path).tensors.values()}
                return path, max(types, key=("F32", "F16", "BF16").index)
        raise ValueError(f"no row {row} is among the {role} factors")

    def losses(self, k: int, role: str) -> Floats | None:
        """(n,) losses of a role at state k, where those of every shard were kept."""
        self._head(k, role)
        parts = []
        for shard in self._shards[self.states[k].folder, role]:
            path = losses_path(shard)
            if path not in self._artifacts:
                return None
            file = self._open(path)
            with naming(path):
                parts.append(losses_of(file, self._heads[shard]))
        return np.concatenate(parts)

    def ggn(self, k: int) -> dict[str, Floats] | None:
        """Layer's name -> (p, p) Gauss-Newton matrix at state k, where it was kept."""
        path = ggn_path(self.states[k])
        if path not in self._artifacts:
            return None
        found = {name: tensor.float32() for name, tensor in self._open(path).tensors.items()}
        for layer in self.layers:
            if layer.name in found and found[layer.name].shape != (layer.size, layer.size):
                raise FormatError(f"{path}: the matrix of {layer.name!r} is not {layer.size} x {layer.size}")
        return found

    def check(self, paths: Iterable[str] | None = None) -> None:
        """Compare files (default: all that belong to factors) with the log's digests now. TamperError names one."""
        for path in [p for p in self._artifacts if p.startswith(FOLDER)] if paths is None else paths:
            self._open(path)

    def _gradients(self, path: str, head: ShardHead, rows: slice) -> tuple[Gradients, ...]:
        """Some rows of a shard; all of it is converted, and kept, where there is room."""
        if path not in self._converted:
            width = sum(w for layer in head.layers for w in layer.columns.values()) + len(head.layers)
            needed = 4 * width * (head.stop - head.start)
            if needed > self._room:
                return self._parsed(path, head, rows)
            self._room -= needed
            self._converted[path] = self._parsed(path, head, slice(None))
        return tuple(g.rows(rows) for g in self._converted[path])

    def _parsed(self, path: str, head: ShardHead, rows: slice | NDArray[np.int64]) -> tuple[Gradients, ...]:
        file = self._open(path)
        with naming(path):
            return gradients_of(file, head, rows)

    def _head(self, k: int, role: str) -> ShardHead:
        state = self.states[k]
        if not self._complete(state, role):
            raise ScoreError(f"there are no complete {role} factors at step {state.step}; score with {role}= given")
        return self._heads[self._shards[state.folder, role][0]]

    def _parse(self, path: str) -> ShardHead:
        if path not in self._heads:
            try:
                file = open_tensors(self._trace.plain(path))
            except FileNotFoundError as error:
                raise TamperError(f"{error}, which the log names; restore it, or score this state anew") from error
            with naming(path):
                self._heads[path] = parse_head(file.metadata)
        return self._heads[path]

    def _open(self, path: str) -> TensorFile:
        if path not in self._files:
            try:
                file = self._trace.plain(path)
                with file.open("rb") as opened:
                    digest = hashlib.file_digest(opened, "sha256").digest()
                if digest != self._artifacts[path]:
                    raise TamperError(
                        f"{path} has SHA-256 {digest.hex()} and the log says {self._artifacts[path].hex()}; restore it"
                    )
                opened_file = open_tensors(file)
            except FileNotFoundError as error:
                raise TamperError(f"{error}, which the log names; restore it, or score this state anew") from error
            if (match := STATE_PATH.fullmatch(path)) and match[2]:
                return opened_file  # losses are small and read once: they hold no file open
            if len(self._files) >= OPEN_FILES:
                self._files.pop(next(iter(self._files)))  # the oldest; it is compared anew when it is needed again
            self._files[path] = opened_file
        return self._files[path]
