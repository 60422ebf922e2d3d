"""Curvatures from sums over ranges of training rows: the ranges may be added up anywhere, and are added in their order.

The sums of a range are named "LAYER/NUMBER". Ekfac goes over the rows twice: for the basis, and for the moments in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fgtrac.score import curvature
from fgtrac.score.cache import Cache
from fgtrac.score.curvature import EXACT_SIZE, Curvature, Doubles, Terms
from fgtrac.score.gradients import Layer
from fgtrac.score.methods import Method, read_all
from fgtrac.store.tensor_files import encode_tensors, open_tensors

Sums = list[list[Doubles]]  # of each layer
Basis = tuple[Doubles, Doubles]


def passes(method: Method) -> int:
    """How often all training rows are gone over for it."""
    return {"fisher": 0 if method.ggn else 1, "ekfac": 2}.get(method.name, 0)


def sum_range(
    cache: Cache, k: int, method: Method, start: int, stop: int, bases: Sequence[Basis] | None = None
) -> dict[str, Doubles]:
    """The sums over some training rows at state k; those of ekfac's second pass in the `bases` of its first."""
    totals: Sums = [[] for _ in cache.layers]
    terms: list[Terms] = [curvature.moments for _ in cache.layers]
    if bases is not None:
        terms = [curvature.turned_by(*basis) for basis in bases]
    elif method.name == "fisher":
        terms = [curvature.squares if _is_exact(layer) else curvature.moments for layer in cache.layers]
    for _start, rows in read_all(cache, k, start=start, stop=stop):
        for total, of, g in zip(totals, terms, rows, strict=True):
            curvature.add_to(total, of(g))
    return {f"{i}/{j}": array for i, total in enumerate(totals) for j, array in enumerate(total)}


def add_ranges(ranges: Iterable[Mapping[str, Doubles]], layers: int) -> Sums:
    """The sums over all ranges."""
    totals: Sums = [[] for _ in range(layers)]
    for one in ranges:
        for i, total in enumerate(totals):
            mine = sorted(name for name in one if name.startswith(f"{i}/"))  # two at the most
            curvature.add_to(total, [np.array(one[name]) for name in mine])
    return totals


def find_bases(totals: Sums, n: int) -> list[Basis]:
    """The eigenbasis of each layer, of the sums of ekfac's first pass over n rows."""
    return [curvature.eigenbasis(total, n) for total in totals]


def encode_bases(bases: Sequence[Basis]) -> list[bytes]:
    """The file of all layers' bases at a state: "LAYER/NUMBER", as sums are named."""
    return encode_tensors({f"{i}/{j}": side for i, basis in enumerate(bases) for j, side in enumerate(basis)}, {})


def read_bases(path: Path) -> list[Basis]:
    """What `encode_bases` gave."""
    tensors = open_tensors(path).tensors
    return [(tensors[f"{i}/0"].array, tensors[f"{i}/1"].array) for i in range(len(tensors) // 2)]


def from_sums(
    layers: Sequence[Layer], method: Method, totals: Sums, n: int, bases: Sequence[Basis] | None = None
) -> tuple[Curvature, ...]:
    """The inverse curvature of each layer, of the sums of the last pass over n rows."""
    by = method.damped_by
    if bases is not None:
        return tuple(curvature.from_turned(b, total, n, by) for b, (total,) in zip(bases, totals, strict=True))
    return tuple(
        curvature.from_matrix(total[0] / n, by) if _is_exact(layer) else curvature.from_moments(total, n, by)
        for layer, total in zip(layers, totals, strict=True)
    )


def _is_exact(layer: Layer) -> bool:
    return layer.size <= EXACT_SIZE
