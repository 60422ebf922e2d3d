"""The kernel: scores of training rows toward prepared targets, block by block over the cached factors.

A block's score is the sum, over states and layers, of `(E E'^T) * (A A'^T)` (inputs A with the bias's column of ones,
deltas E; arXiv:2002.08484 section 3.3 for one layer), or of `G G'^T` where one of the two sides is no outer product.
Outer products meet a target's matrix M as `delta^T M x`: what is between is then smaller than the gradient.
The matrix of all pairs is never formed: a block stays in the processor's cache, and of each target only the k best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgtrac.score.cache import Cache
from fgtrac.score.gradients import Floats, Gradients, Layer
from fgtrac.score.topk import TopK, best_of

Progress = Callable[[int, int], None]

BLOCK_NUMBERS = 1 << 20  # of one block's scores, or of what is between
SMALL = 1 << 14  # numbers of a gradient that may be multiplied out: 64 rows of it are one block
TARGETS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Where outer products are weighed entry by entry: the score of two gradients is the sum over all entries of
    `weights` times both, turned: deltas by the columns of `rows` (r, r), inputs by those of `columns` (c, c)."""

    rows: Floats
    columns: Floats
    weights: Floats


@dataclass(frozen=True, slots=True, eq=False)
class PreparedLayer:
    """The target side of one layer, with all weights in it: `inputs` (m, d_in + bias) and `deltas` (m, d_out), or
    `dense` (m, layer.size); float32. With a `basis` both factors are turned into it, and its weights are still due."""

    layer: Layer
    inputs: Floats | None = None
    deltas: Floats | None = None
    dense: Floats | None = None
    basis: Basis | None = None

    def __len__(self) -> int:
        some = self.deltas if self.deltas is not None else self.dense
        assert some is not None
        return len(some)

    def cut(self, start: int, stop: int) -> PreparedLayer:
        """Targets `start` up to `stop`."""
        parts = {n: v[start:stop] for n in ("inputs", "deltas", "dense") if (v := getattr(self, n)) is not None}
        return PreparedLayer(self.layer, **parts, basis=self.basis)

    @property
    def is_multiplied_out(self) -> bool:
        """Whether the gradients of training rows are, for so many targets."""
        if self.layer.form != "factored":
            return True
        return self.deltas is None and len(self) > self.layer.d_in and self.layer.size <= SMALL

    @property
    def width(self) -> int:
        """Numbers of a training row that are in the works at once, beside its scores."""
        if self.is_multiplied_out:
            return self.layer.size
        return self.layer.d_out if self.deltas is None or self.basis is not None else 1


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """m targets at one state; with `unit_rows` every training row's gradient (all layers together) counts with length
    one."""

    layers: tuple[PreparedLayer, ...]
    unit_rows: bool = False

    def __len__(self) -> int:
        return len(self.layers[0])

    def cut(self, start: int, stop: int) -> Prepared:
        """Targets `start` up to `stop`."""
        return Prepared(tuple(layer.cut(start, stop) for layer in self.layers), self.unit_rows)


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """For each of m targets its k proponents (largest scores first) and k opponents (smallest first): rows (m, k)
    int64 and scores (m, k) float32, summed over states. Equal scores stand in the order of rows."""

    proponents: NDArray[np.int64]
    proponent_scores: Floats
    opponents: NDArray[np.int64]
    opponent_scores: Floats


def rank(
    cache: Cache,
    targets: Sequence[Prepared],
    k: int,
    *,
    role: str = "train",
    rows: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """The k strongest proponents and opponents of each target among a role's rows (all, or from one up to another), in
    one pass over the factors.

    `targets` has one item for each of the cache's states. With fewer than k rows, all of them. ValueError for k < 1.
    """
    check_count(k)
    begin, end = (0, len(cache.rows(role))) if rows is None else rows
    n, m = end - begin, len(targets[0])
    k = min(k, n)
    found = []
    for start in range(0, m, TARGETS_AT_ONCE):
        part = [prepared.cut(start, min(m, start + TARGETS_AT_ONCE)) for prepared in targets]
        best, worst = TopK(len(part[0]), k, largest=True), TopK(len(part[0]), k, largest=False)
        for first, block in blocks(cache, part, begin, end, role):
            best.add(first, block)
            worst.add(first, block)
            if progress is not None:
                progress(start * n + (first - begin + len(block)) * len(part[0]), m * n)
        found.append((*best.result(), *worst.result()))
    return Ranking(*(np.concatenate(column) for column in zip(*found, strict=True)))


def check_count(k: int) -> None:
    """ValueError for a number of strongest rows that are none."""
    if k < 1:
        raise ValueError(f"the {k} strongest are none; ask for at least 1")


def merge_rankings(first: Ranking, second: Ranking, k: int) -> Ranking:
    """The k strongest of two ranges of rows, of which the second begins where the first ends: as `rank` of both."""
    best = best_of([(r.proponents, r.proponent_scores) for r in (first, second)], k, largest=True)
    return Ranking(*best, *best_of([(r.opponents, r.opponent_scores) for r in (first, second)], k, largest=False))


def scores(cache: Cache, targets: Sequence[Prepared], start: int, stop: int, *, role: str = "train") -> Floats:
    """(stop - start, m): the scores of some rows toward each target, summed over states."""
    out = np.empty((stop - start, len(targets[0])), dtype=np.float32)
    for first, block in blocks(cache, targets, start, stop, role):
        out[first - start : first - start + len(block)] = block
    return out


def traces(cache: Cache, targets: Sequence[Prepared], rows: NDArray[np.int64], *, role: str = "train") -> Floats:
    """(states, len(rows), m): the contribution traces, one share for each state."""
    out = np.zeros((len(targets), len(rows), len(targets[0])), dtype=np.float32)
    for state, prepared in enumerate(targets):
        add_scores(cache.take(state, role, rows), prepared, out[state])
    return out


def blocks(cache: Cache, targets: Sequence[Prepared], start: int, stop: int, role: str) -> Iterator[tuple[int, Floats]]:
    """(first row, its block's scores (b, m)) over the rows; a block is overwritten by the next one."""
    size = block_rows(targets[0])
    held = np.empty((3, min(size, stop - start), len(targets[0])), dtype=np.float32)
    for first in range(start, stop, size):
        last = min(stop, first + size)
        block, *spare = held[:, : last - first]
        block[:] = 0
        for state, prepared in enumerate(targets):
            add_scores(cache.read(state, role, first, last), prepared, block, spare)
        yield first, block


def block_rows(targets: Prepared) -> int:
    """Rows of one block: few enough for the processor's cache, many enough for the matrix product."""
    widest = max(layer.width for layer in targets.layers)
    return max(64, min(2048, BLOCK_NUMBERS // max(len(targets), widest)))


def add_scores(
    train: Sequence[Gradients], targets: Prepared, out: Floats, spare: Sequence[Floats] | None = None
) -> None:
    """Add to `out` (b, m) the scores of b training rows toward m targets at one state; `spare` are two arrays of the
    same shape, whose content is lost."""
    spare = list(np.empty((2, *out.shape), dtype=np.float32)) if spare is None else spare
    weights = None
    if targets.unit_rows:
        lengths = np.sqrt(sum(g.squared_norms() for g in train))
        weights = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0).astype(np.float32)
    for rows, target in zip(train, targets.layers, strict=True):
        if weights is not None:
            rows = rows.scaled(weights)
        if target.is_multiplied_out:
            assert target.dense is not None
            out += rows.whole() @ target.dense.T
            continue
        assert rows.deltas is not None
        if target.deltas is None:
            _add_between(rows.with_bias(), rows.deltas, target, out)
        elif target.basis is None:
            _add_products(rows, target, out, spare)
        else:
            _add_between(rows.with_bias() @ target.basis.columns, rows.deltas @ target.basis.rows, target, out)


def _add_products(rows: Gradients, target: PreparedLayer, out: Floats, spare: Sequence[Floats]) -> None:
    """Both sides are outer products: two matrix products, multiplied element by element."""
    assert rows.deltas is not None
    assert target.inputs is not None
    assert target.deltas is not None
    product = np.matmul(rows.with_bias(), target.inputs.T, out=spare[0])
    product *= np.matmul(rows.deltas, target.deltas.T, out=spare[1])
    out += product


def _add_between(inputs: Floats, deltas: Floats, target: PreparedLayer, out: Floats) -> None:
    """delta^T M x of outer products (inputs (b, c), deltas (b, r)) for the matrix M of each target, some at a time."""
    r, c = target.layer.shape
    size = max(1, BLOCK_NUMBERS // (r * max(c, len(inputs))))
    for start in range(0, len(target), size):
        matrices = _matrices(target.cut(start, start + size))
        product = (inputs @ matrices.reshape(-1, c).T).reshape(len(inputs), -1, r)
        out[:, start : start + size] += np.matmul(product, deltas[:, :, None])[:, :, 0]


def _matrices(target: PreparedLayer) -> Floats:
    """(m, r, c): what stands between deltas and inputs."""
    if target.basis is None:
        assert target.dense is not None
        return target.dense.reshape(len(target), *target.layer.shape)
    assert target.inputs is not None
    assert target.deltas is not None
    return (target.deltas[:, :, None] * target.basis.weights) * target.inputs[:, None, :]
