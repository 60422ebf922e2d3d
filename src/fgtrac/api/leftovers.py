"""Factor files that a pass left which was cut off: no entry names them, and the next pass goes on from those that fit.

A file is put in place whole or not at all, so what lies there can be read. What it says of itself, and what a few of
its rows give now, tell whether this pass would make the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from fgtrac.errors import FormatError, ScoreError
from fgtrac.score.factor_files import (
    FOLDER,
    TYPES,
    Rows,
    ShardHead,
    encode_rows,
    gradients_of,
    losses_of,
    losses_path,
    parse_head,
    parse_rows,
    rows_path,
)
from fgtrac.score.gradients import Floats, Layer
from fgtrac.store import durable
from fgtrac.store.tensor_files import open_tensors
from fgtrac.store.trace_dir import TraceDir


def find_unnamed(trace: TraceDir, named: Set[str], folder: str = FOLDER) -> list[str]:
    """Files of factors, in this folder or below, that no entry names."""
    top = trace.path / folder
    found = sorted(top.rglob("*")) if top.is_dir() else []
    return [path for p in found if p.is_file() and (path := str(p.relative_to(trace.path))) not in named]


def remove_unnamed(
    trace: TraceDir, named: Set[str], folder: str = FOLDER, stays: Callable[[str], object] = lambda path: False
) -> None:
    """Take them away, but for those that `stays` is true of."""
    for path in find_unnamed(trace, named, folder):
        if not stays(path):
            durable.remove(trace.path / path)
            durable.remove_empty((trace.path / path).parent, trace.path)


def find_losses(trace: TraceDir, path: str, head: ShardHead, dtype: str) -> Floats | None:
    """(n,) the losses beside a shard that has exactly this head and `dtype`; None where there is no such pair."""
    try:
        file = open_tensors(trace.plain(path))
        found = gradients_of(file, head, slice(0, 0))
        columns = sum(len(of.layer.columns) for of in found)
        types = {tensor.type for tensor in file.tensors.values()}
        if parse_head(file.metadata) != head or types != {TYPES[dtype]} or len(file.tensors) != columns:
            return None
        return losses_of(open_tensors(trace.plain(losses_path(path))), head)
    except (FormatError, FileNotFoundError):
        return None


def is_matrix(trace: TraceDir, path: str, layer: Layer) -> bool:
    """Whether the Gauss-Newton matrix of a layer lies there."""
    try:
        held = open_tensors(trace.plain(path)).tensors
    except (FormatError, FileNotFoundError):
        return False
    return set(held) == {layer.name} and held[layer.name].array.shape == (layer.size, layer.size)


def find_rows(trace: TraceDir, named: Set[str], role: str, fits: Callable[[Rows], bool]) -> bytes:
    """The bytes of a file of rows that was left, and that `fits` is true of; none where there is no such file."""
    for path in find_unnamed(trace, named):
        if path.startswith(f"{FOLDER}/rows-{role}-"):
            try:
                rows = parse_rows(open_tensors(trace.plain(path)))
            except FormatError:
                continue
            data = encode_rows(rows, role)
            if rows_path(role, data) == path and fits(rows):
                return data
    return b""


def are_close(now: Floats, then: Floats) -> bool:
    """Whether losses of the same rows at the same state are of the same loss function: to a hundredth of the largest,
    which no rounding reaches."""
    if now.shape != then.shape or not np.isfinite(then).all():
        return False
    return bool(np.abs(now - then).max(initial=0) <= 0.01 * np.abs(then).max(initial=0) + 1e-6)


@contextmanager
def alone_in_making(trace: TraceDir, lock: Path) -> Iterator[None]:
    """One process at a time makes factors of a trace: files that are not named yet are nobody else's to remove.
    ScoreError where another does."""
    with ExitStack() as held:
        try:
            held.enter_context(durable.lock(lock, "the trace"))
        except BlockingIOError as error:
            name = trace.path.name
            raise ScoreError(f"{name} is being scored by another process; wait for it, then try again") from error
        yield
