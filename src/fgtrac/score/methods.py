"""The methods: how the target side is prepared at each state. The training side is always the cached gradients.

tracin      learning rate times the inner product of gradients (arXiv:2002.08484 eq. 1)
tracin-cos  the same with gradients of length one (arXiv:2402.04333 section 4)
fisher      the damped inverse Fisher (or with ggn the Gauss-Newton matrix) in between, exact up to 4,096 numbers a
            gradient, of Kronecker factors above that; every state counts alike
ekfac       the same through an eigenvalue-corrected Kronecker basis for each layer (arXiv:1806.03884, 2308.03296)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ScoreError
from fgtrac.score import curvature
from fgtrac.score.cache import Cache
from fgtrac.score.curvature import Curvature, bytes_of, factors_of
from fgtrac.score.curvature_files import read_curvatures
from fgtrac.score.gradients import Floats, Gradients, Layer
from fgtrac.score.kernel import SMALL, Prepared, PreparedLayer, Progress

METHODS = ("tracin", "tracin-cos", "fisher", "ekfac")
DAMPING = {"fisher": 0.1, "ekfac": 0.3}  # of benchmarks/lds.py: flat around these
GGN_DAMPING = 0.03
READ_NUMBERS = 1 << 22  # of training gradients at once, multiplied out
GROUP_BYTES = 1 << 28  # of targets that are prepared together, over all states
KEPT_BYTES = 1 << 30  # of curvatures that stay with an opened cache


@dataclass(frozen=True, slots=True)
class Method:
    """A method with its settings; ValueError for an unknown name, or settings that it has not."""

    name: str = "tracin"
    damping: float | None = None
    ggn: bool = False

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise ValueError(f"method {self.name!r:.40} is none of {', '.join(METHODS)}")
        if self.damping is not None and self.name not in DAMPING:
            raise ValueError(f"damping belongs to {' and '.join(DAMPING)}, not to {self.name}")
        if self.damping is not None and not 0 < self.damping < float("inf"):
            raise ValueError(f"damping {self.damping}: give a number above 0")
        if self.ggn and self.name != "fisher":
            raise ValueError(f"ggn belongs to fisher, not to {self.name}")

    @property
    def damped_by(self) -> float:
        """The damping in force."""
        usual = GGN_DAMPING if self.ggn else DAMPING.get(self.name, 0.0)
        return self.damping if self.damping is not None else usual

    def __str__(self) -> str:
        words = f"{self.name}{' ggn' if self.ggn else ''}"
        return f"{words} {self.damped_by:g}" if self.name in DAMPING else words


def parse_method(words: str) -> Method:
    """The method of its words: `str(method)` read back. ValueError for others."""
    name, *rest = words.split(" ")
    ggn = rest[:1] == ["ggn"]
    rest = rest[1:] if ggn else rest
    method = Method(name, float(rest[0]) if len(rest) == 1 else None, ggn)
    if str(method) != words:
        raise ValueError(f"{words!r:.60} is no method; write {str(method)!r}")
    return method


def prepare(cache: Cache, k: int, targets: Sequence[Gradients], method: Method) -> Prepared:
    """m targets' gradients at state k, one `Gradients` a layer, made ready for the kernel."""
    if method.name == "tracin-cos":
        lengths = np.sqrt(sum(t.squared_norms() for t in targets))
        by = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0).astype(np.float32)
        targets = [t.scaled(by) for t in targets]
    ready = zip(curvatures(cache, k, method), targets, strict=True)
    return Prepared(tuple(c.apply(t) for c, t in ready), unit_rows=method.name == "tracin-cos")


def group_size(caches: Sequence[Cache], m: int, method: Method, *, dense: bool = False) -> int:
    """How many of m targets (`dense`: means, not single samples) are prepared together: at least one, and as many as
    stay within GROUP_BYTES over all states of all caches, in groups of about the same size."""
    each = [_prepared_numbers(layer, m, method, dense) * len(c.states) for c in caches for layer in c.layers]
    groups = -(-m // max(1, GROUP_BYTES // (4 * sum(each))))
    return -(-m // groups)


def _prepared_numbers(layer: Layer, m: int, method: Method, dense: bool) -> int:
    """Of each of m targets, in one layer at one state."""
    stays = {
        "fisher": not method.ggn and layer.size > curvature.EXACT_SIZE,
        "ekfac": curvature.stay_in_eigenbasis(layer, m),
    }
    if dense or layer.form != "factored" or not stays.get(method.name, True):
        return layer.size
    return sum(layer.columns.values()) + layer.bias


def mean_target(parts: Iterable[Sequence[Gradients]]) -> tuple[Gradients, ...]:
    """The mean gradient over all samples of some blocks, as one dense target a layer: of a group, a class, a role."""
    sums: list[NDArray[np.float64]] = []
    n, layers = 0, []
    for part in parts:
        n += len(part[0])
        layers = [g.layer for g in part]
        these = [sum_of(g) for g in part]
        sums = [a + b for a, b in zip(sums, these, strict=True)] if sums else these
    if n == 0:
        raise ValueError("a target of no samples has no gradient; name at least one")
    return tuple(
        Gradients(layer, dense=(s / n).astype(np.float32)[None]) for layer, s in zip(layers, sums, strict=True)
    )


def sum_of(gradients: Gradients) -> NDArray[np.float64]:
    """(layer.size,) float64: the sum over samples."""
    if gradients.dense is not None:
        return np.asarray(gradients.dense.sum(axis=0, dtype=np.float64))
    inputs, deltas = factors_of(gradients)
    return np.asarray(deltas.T.astype(np.float64) @ inputs.astype(np.float64)).reshape(-1)


def self_influence(cache: Cache, method: Method, progress: Progress | None = None) -> Floats:
    """(n,): each training sample's score toward its own loss, summed over states (arXiv:2002.08484 section 4.1).

    ValueError for tracin-cos, where every sample has the same.
    """
    check_self_influence(method)
    n = len(cache.rows("train"))
    out = np.zeros(n, dtype=np.float32)
    for k in range(len(cache.states)):
        for stop in add_self_influence(cache, k, method, out):
            if progress is not None:
                progress(k * n + stop, len(cache.states) * n)
    return out


def check_self_influence(method: Method) -> None:
    """ValueError for a method that measures none."""
    if method.name == "tracin-cos":
        raise ValueError("by tracin-cos every sample's self-influence is the same; choose tracin, fisher or ekfac")


def add_self_influence(cache: Cache, k: int, method: Method, out: Floats, first: int = 0) -> Iterator[int]:
    """Add what state k has in the self-influence of the training rows `first`, ... to `out`; yields how far it is."""
    inverses = curvatures(cache, k, method)
    for start, rows in read_all(cache, k, start=first, stop=first + len(out)):
        for inverse, g in zip(inverses, rows, strict=True):
            out[start - first : start - first + len(g)] += inverse.quadratic(g)
        yield start + len(rows[0])


def curvatures(cache: Cache, k: int, method: Method) -> tuple[Curvature, ...]:
    """Each layer's inverse curvature at state k; computed once for each opened cache, as far as KEPT_BYTES go: those of
    other methods leave first. Where `cache.curvatures` has a folder with those of this method, they are read."""
    known: tuple[Curvature, ...] | None
    if method.name not in DAMPING:
        return tuple(curvature.Scaled(rate) for rate in cache.learning_rates(k))
    known = cache.kept.get((method, k))
    if known is None:
        known = computed_before(cache, k, method) or compute_curvatures(cache, k, method)
        _keep(cache, method, k, known)
    return known


def computed_before(cache: Cache, k: int, method: Method) -> tuple[Curvature, ...]:
    """Those in files that somebody made; none where nobody did."""
    there = cache.curvatures.get(method)
    return () if there is None else read_curvatures(there, k)


def compute_curvatures(cache: Cache, k: int, method: Method) -> tuple[Curvature, ...]:
    """Each layer's, from all training rows."""
    return tuple(_curvature(cache, k, i, method) for i in range(len(cache.layers)))


def _keep(cache: Cache, method: Method, k: int, found: tuple[Curvature, ...]) -> None:
    room = KEPT_BYTES - sum(map(bytes_of, found))
    held = {key: sum(map(bytes_of, v)) for key, v in cache.kept.items() if isinstance(key[0], Method)}
    for key in [key for key in held if key[0] != method]:
        if sum(held.values()) > room:
            del cache.kept[key], held[key]
    if sum(held.values()) <= room:
        cache.kept[method, k] = found


def _curvature(cache: Cache, k: int, i: int, method: Method) -> Curvature:
    layer = cache.layers[i]
    if method.name == "ekfac":
        return curvature.ekfac(layer, lambda: _one_layer(cache, k, i), method.damped_by)
    if method.ggn:
        matrices = cache.ggn(k)
        if matrices is None or layer.name not in matrices:
            raise ScoreError(f"no Gauss-Newton matrix of {layer.name!r} was kept; score with ggn=True, or without ggn")
        return curvature.from_matrix(matrices[layer.name], method.damped_by)
    if layer.size <= curvature.EXACT_SIZE:
        return curvature.fisher(_one_layer(cache, k, i), method.damped_by)
    return curvature.kronecker(_one_layer(cache, k, i), method.damped_by)


def _one_layer(cache: Cache, k: int, i: int) -> Iterator[Gradients]:
    return (rows[i] for _start, rows in read_all(cache, k))


def read_all(
    cache: Cache, k: int, role: str = "train", start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, tuple[Gradients, ...]]]:
    """(first row, gradients) over all rows of a role at state k, or over `start` up to `stop`."""
    end = len(cache.rows(role)) if stop is None else stop
    size = max(64, READ_NUMBERS // max(map(_read_numbers, cache.layers)))
    for first in range(start, end, size):
        yield first, cache.read(k, role, first, min(end, first + size))


def _read_numbers(layer: Layer) -> int:
    """Of one gradient in memory: outer products of many numbers are not multiplied out."""
    return layer.size if layer.form != "factored" or layer.size <= SMALL else sum(layer.columns.values())


def prepare_role(cache: Cache, role: str, method: Method) -> list[Prepared]:
    """The mean over a role's samples as one target, at every state."""
    means = (mean_target(rows for _start, rows in read_all(cache, k, role)) for k in range(len(cache.states)))
    return [prepare(cache, k, mean, method) for k, mean in enumerate(means)]


__all__ = [
    "METHODS", "Method", "Prepared", "PreparedLayer", "curvatures", "group_size", "mean_target", "parse_method",
    "prepare", "prepare_role", "read_all", "self_influence",
]  # fmt: skip
