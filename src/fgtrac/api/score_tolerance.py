"""How far a recorded score may be from the one that is computed again: what rounding explains for that sample alone.

A score is a sum of products of float32 numbers. Rounding moves it by a small share of the sum of the magnitudes of its
terms, never by a share of another sample's score: an outlier gives others no room. What a curvature is inverted for
adds what rounding in float64 does to the prepared target; where that is not small, nothing can be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from fgtrac.score import curvature
from fgtrac.score.cache import Cache
from fgtrac.score.curvature import Doubles
from fgtrac.score.gradients import Floats, Gradients, Layer
from fgtrac.score.kernel import Prepared, PreparedLayer, add_scores, block_rows
from fgtrac.score.methods import Method, read_all
from fgtrac.verify.checks import CannotTell

SHARE = 2.0**-18  # 4e-6 of the terms' magnitudes: four times what another BLAS, threads and float64 were seen to change
LENGTHS = 2.0**-30  # of a score by tracin-cos, for each number of the longest sum: lengths are plain float32 sums
LEAST = 2.0**-116  # 1e-35: what float32 cannot hold exactly, with its products
INVERSION = 2.0**-53 * 64  # of a prepared target, times p / damping: sums, an inverse and products in float64
SHAKEN = 2.0**-50  # relative change of factors that stands for rounding of their moments
SHAKEN_MARGIN = 16
TOO_MUCH = 1e-2  # of a prepared target, or of a score: more than this is not "computed again"
MOST_LOOSE = 0.1  # of the scores at a state


def tolerances(
    cache: Cache, prepared: Prepared, targets: Sequence[Gradients], method: Method, found: Floats
) -> Doubles:
    """(n,) float64: how far each training sample's score toward one target may be from `found` (n,), at the cache's one
    state. `prepared` is what `targets` (one a layer) became.

    CannotTell where the damping is too weak: rounding alone changes the prepared target, or a tenth of the scores, by
    more than a hundredth.
    """
    spreads = np.array([_inversion(layer, method) for layer in cache.layers])
    lengths = np.array([_length(layer) for layer in prepared.layers])
    against = _magnitudes(cache, prepared, targets, method)
    if spreads.max() > TOO_MUCH:
        raise _undecided(method)
    n, size = len(found), block_rows(prepared)
    terms, out = np.empty(n), np.empty(n)
    for start in range(0, n, size):
        here = slice(start, min(n, start + size))
        rows = cache.read(0, "train", here.start, here.stop)
        sums = np.zeros((len(rows[0]), 1), dtype=np.float32)
        add_scores([_absolute(g) for g in rows], against, sums)
        terms[here] = sums[:, 0]
        out[here] = SHARE * terms[here]
        if spreads.any():
            norms = np.sqrt(np.stack([g.squared_norms().astype(np.float64) for g in rows], axis=1))
            out[here] += norms @ (spreads * lengths)
    if prepared.unit_rows:
        out += LENGTHS * max(_numbers(layer) for layer in prepared.layers) * np.abs(found)
    out += LEAST
    loose = (terms > 0) & (out > TOO_MUCH * np.abs(found))
    if np.count_nonzero(loose) > MOST_LOOSE * n:
        raise CannotTell(
            f"rounding may change {np.count_nonzero(loose)} of {n} scores by {method} by more than a hundredth"
        )
    return out


def _undecided(method: Method) -> CannotTell:
    why = "too weak, or eigenvalues are too near to equal" if method.name == "ekfac" else "too weak for its size"
    return CannotTell(f"rounding decides what {method} gives: the damping is {why}")


def _inversion(layer: Layer, method: Method) -> float:
    """How much of its own length rounding in float64 may move a prepared target by, where a matrix was inverted."""
    if method.name != "fisher":
        return 0.0
    exact = method.ggn or layer.size <= curvature.EXACT_SIZE
    return INVERSION * (layer.size if exact else sum(layer.shape)) / method.damped_by


def _length(target: PreparedLayer) -> float:
    """The length of one target."""
    parts = [v for v in (target.inputs, target.deltas, target.dense) if v is not None]
    return float(np.prod([np.linalg.norm(part.astype(np.float64)) for part in parts]))


def _numbers(target: PreparedLayer) -> int:
    """How many numbers the length of a target or row is summed over, in this layer."""
    return target.layer.size if target.deltas is None else sum(target.layer.columns.values())


def _absolute(rows: Gradients) -> Gradients:
    if rows.dense is not None:
        return Gradients(rows.layer, dense=np.abs(rows.dense))
    inputs, deltas = curvature.factors_of(rows)
    extended = np.abs(inputs)
    return Gradients(rows.layer, extended[:, : rows.layer.d_in], np.abs(deltas), extended=extended)


def _magnitudes(cache: Cache, prepared: Prepared, targets: Sequence[Gradients], method: Method) -> Prepared:
    """The prepared target's magnitudes; by ekfac with what its eigenvectors add, in units of SHARE."""
    layers = []
    for i, (ready, target) in enumerate(zip(prepared.layers, targets, strict=True)):
        parts = {n: np.abs(v) for n in ("inputs", "deltas", "dense") if (v := getattr(ready, n)) is not None}
        if method.name == "ekfac":
            parts["dense"] += _shift(cache, i, ready, target, method)
        layers.append(PreparedLayer(ready.layer, **parts))
    return Prepared(tuple(layers), prepared.unit_rows)


def _shift(cache: Cache, i: int, ready: PreparedLayer, target: Gradients, method: Method) -> Floats:
    """(1, layer.size): how rounding may move a target that ekfac prepared: what factors that differ by as much give.

    Near equal eigenvalues have no eigenvectors of their own: no formula of the damping alone tells.
    """
    generator = np.random.default_rng(0)
    rows, columns = (1 + SHAKEN * generator.standard_normal(d) for d in ready.layer.shape)
    key = ("shaken", i, method)
    if key not in cache.kept:
        blocks = partial(_shaken, cache, i, rows, columns)
        cache.kept[key] = curvature.ekfac(ready.layer, blocks, method.damped_by)
    again = cache.kept[key].apply(target).dense
    assert ready.dense is not None
    moved = SHAKEN_MARGIN * np.abs(again.astype(np.float64) - ready.dense)
    if not np.linalg.norm(moved) <= TOO_MUCH * _length(ready):
        raise _undecided(method)
    return curvature.single(moved / SHARE)


def _shaken(cache: Cache, i: int, by_row: Doubles, by_column: Doubles) -> Iterator[Gradients]:
    """All training gradients of a layer, a last bit of float64 changed in each row and column."""
    for _start, layers in read_all(cache, 0):
        g = layers[i]
        parts: dict[str, Any]
        if g.dense is not None:
            by = (by_row[:, None] * by_column).ravel()
            parts = {"dense": g.dense * by}
        else:
            inputs, deltas = curvature.factors_of(g)
            parts = {"inputs": g.inputs, "extended": inputs * by_column, "deltas": deltas * by_row}
        yield Gradients(g.layer, **parts)
