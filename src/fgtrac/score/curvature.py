"""What a gradient is preconditioned with: the damped inverse of a layer's curvature, estimated on the cached factors.

Each curvature prepares targets (`apply`) and measures training rows (`quadratic`: g^T H^-1 g). Damping is relative:
`damping` times the mean eigenvalue is added to every eigenvalue. Curvatures are summed, inverted and applied to targets
in float64: an inverse multiplies rounding by up to p / damping, and an auditor's BLAS must come to the same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fgtrac.score.gradients import Floats, Gradients, Layer, row_dots
from fgtrac.score.kernel import SMALL, Basis, PreparedLayer

Doubles = NDArray[np.float64]

EXACT_SIZE = 4096  # gradients of up to so many numbers have their Fisher matrix inverted as it is
FEW = 16  # up to so many targets, each is turned back from an eigenbasis: cheaper than turning all rows into it


class Curvature(Protocol):
    """The inverse curvature of one layer at one state."""

    def apply(self, targets: Gradients) -> PreparedLayer: ...

    def quadratic(self, rows: Gradients) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Scaled:
    """No curvature: the learning rate (TracIn, arXiv:2002.08484 eq. 1)."""

    rate: float

    def apply(self, targets: Gradients) -> PreparedLayer:
        """Targets times the learning rate."""
        if not targets.is_factored:
            return PreparedLayer(targets.layer, dense=targets.scaled(self.rate).dense)
        inputs, deltas = factors_of(targets)
        return PreparedLayer(targets.layer, inputs, deltas * np.float32(self.rate))

    def quadratic(self, rows: Gradients) -> Floats:
        """(n,)"""
        return rows.squared_norms() * np.float32(self.rate)


@dataclass(frozen=True, slots=True, eq=False)
class Exact:
    """The whole damped matrix, inverted: `inverse` (p, p)."""

    inverse: Doubles

    def apply(self, targets: Gradients) -> PreparedLayer:
        """Dense targets: H^-1 g is no outer product any more."""
        return PreparedLayer(targets.layer, dense=single(targets.whole() @ self.inverse))

    def quadratic(self, rows: Gradients) -> Floats:
        """(n,)"""
        whole = rows.whole()
        return row_dots(whole @ single(self.inverse), whole)


@dataclass(frozen=True, slots=True, eq=False)
class Kronecker:
    """A Kronecker product of two damped inverses: of the deltas' second moments, and of the inputs' (arXiv:1503.05671
    section 3). Outer products stay outer products."""

    deltas: Doubles
    inputs: Doubles

    def apply(self, targets: Gradients) -> PreparedLayer:
        """Both factors whitened; dense targets from both sides."""
        if targets.is_factored:
            inputs, deltas = factors_of(targets)
            return PreparedLayer(targets.layer, single(inputs @ self.inputs), single(deltas @ self.deltas))
        matrices = targets.whole().reshape(len(targets), *targets.layer.shape)
        dense = np.matmul(self.deltas @ matrices, self.inputs).reshape(len(targets), -1)
        return PreparedLayer(targets.layer, dense=single(dense))

    def quadratic(self, rows: Gradients) -> Floats:
        """(n,)"""
        if not rows.is_factored:
            whole = rows.whole()
            dense = self.apply(rows).dense
            assert dense is not None
            return row_dots(dense, whole)
        inputs, deltas = factors_of(rows)
        return row_dots(inputs @ single(self.inputs), inputs) * row_dots(deltas @ single(self.deltas), deltas)


@dataclass(frozen=True, slots=True, eq=False)
class Eigen:
    """EKFAC (arXiv:1806.03884): a Kronecker eigenbasis, and in it the second moment of each coordinate, damped.

    `rows` (r, r) and `columns` (c, c) hold eigenvectors in their columns; `inverse` (r, c) over `mean` are the damped
    inverses.
    """

    rows: Doubles
    columns: Doubles
    inverse: Doubles
    mean: float

    def apply(self, targets: Gradients) -> PreparedLayer:
        """Many large outer products are left in the eigenbasis, where they stay small; others are dense targets."""
        if targets.is_factored and stay_in_eigenbasis(targets.layer, len(targets)):
            inputs, deltas = factors_of(targets)
            parts = single(inputs @ self.columns), single(deltas @ self.rows / self.mean)
            basis = Basis(single(self.rows), single(self.columns), single(self.inverse))
            return PreparedLayer(targets.layer, *parts, basis=basis)
        dense = np.empty((len(targets), targets.layer.size), dtype=np.float32)
        for j in range(len(targets)):
            matrix = targets.rows(slice(j, j + 1)).whole().reshape(self.inverse.shape)
            turned = (self.rows.T @ matrix @ self.columns) * self.inverse / self.mean
            dense[j] = (self.rows @ turned @ self.columns.T).reshape(-1)
        return PreparedLayer(targets.layer, dense=dense)

    def quadratic(self, rows: Gradients) -> Floats:
        """(n,)"""
        left, right, inverse = single(self.rows), single(self.columns), single(self.inverse)
        if rows.is_factored:
            inputs, deltas = factors_of(rows)
            found = row_dots(np.square(deltas @ left) @ inverse, np.square(inputs @ right))
        else:
            matrices = rows.whole().reshape(len(rows), *self.inverse.shape)
            found = (np.square(left.T @ matrices @ right) * inverse).sum(axis=(1, 2))
        return single(double(found) / self.mean)


def stay_in_eigenbasis(layer: Layer, m: int) -> bool:
    """Whether m outer products in a layer are not turned back by ekfac."""
    return m > FEW and layer.size > SMALL


Terms = Callable[[Gradients], tuple[Doubles, ...]]


def add_up(blocks: Iterable[Gradients], terms: Terms) -> tuple[list[Doubles], int]:
    """The sums over all rows of what `terms` gives for each block, and the number of rows."""
    totals: list[Doubles] = []
    n = 0
    for rows in blocks:
        n += len(rows)
        add_to(totals, terms(rows))
    return totals, n


def add_to(totals: list[Doubles], terms: Iterable[Doubles]) -> None:
    """Add further terms to sums, which begin empty and then are the first terms."""
    if not totals:
        totals += terms
        return
    for total, term in zip(totals, terms, strict=True):
        np.add(total, term, out=total)


def fisher(blocks: Iterable[Gradients], damping: float) -> Exact:
    """The exact empirical Fisher matrix of a layer, damped and inverted. `blocks` are all training rows."""
    (total,), n = add_up(blocks, squares)
    total /= n
    return from_matrix(total, damping)


def squares(rows: Gradients) -> tuple[Doubles]:
    """Whose mean is the Fisher matrix."""
    whole = double(rows.whole())
    return (whole.T @ whole,)


def from_matrix(matrix: Floats | Doubles, damping: float) -> Exact:
    """A curvature matrix (p, p), damped and inverted."""
    return Exact(damped_inverse(matrix, damping))


def kronecker(blocks: Iterable[Gradients], damping: float) -> Kronecker:
    """Both Kronecker factors of a layer whose rows are outer products (or matrices), damped and inverted."""
    sums, n = add_up(blocks, moments)
    return from_moments(sums, n, damping)


def from_moments(sums: Iterable[Doubles], n: int, damping: float) -> Kronecker:
    """Kronecker factors of the sums of `moments` over n rows, damped and inverted."""
    return Kronecker(*(damped_inverse(total / n, damping) for total in sums))


def ekfac(layer: Layer, read: Callable[[], Iterable[Gradients]], damping: float) -> Eigen:
    """The eigenbasis of the two Kronecker factors, and the moments in it; `read` gives all training rows, twice."""
    basis = eigenbasis(*add_up(read(), moments))
    (total,), n = add_up(read(), turned_by(*basis))
    return from_turned(basis, total, n, damping)


def eigenbasis(sums: Iterable[Doubles], n: int) -> tuple[Doubles, Doubles]:
    """The eigenvectors, in columns, of the means of `moments` over n rows: of the deltas', and of the inputs'."""
    rows, columns = (double(np.linalg.eigh(total / n)[1]) for total in sums)
    return rows, columns


def from_turned(basis: tuple[Doubles, Doubles], total: Doubles, n: int, damping: float) -> Eigen:
    """The moments (r, c) in an eigenbasis, summed over n rows, damped."""
    mean = max(float(total.mean()) / n, TINY)
    return Eigen(*basis, 1 / (total / n / mean + damping), mean)


def turned_by(rows: Doubles, columns: Doubles) -> Terms:
    """Gives the squares (r, c) of the coordinates in an eigenbasis."""

    def turned(block: Gradients) -> tuple[Doubles]:
        if block.is_factored:
            x, d = factors_of(block)
            return (np.square(d @ rows).T @ np.square(x @ columns),)
        matrices = block.whole().reshape(len(block), *block.layer.shape)
        return (np.square(rows.T @ matrices @ columns).sum(axis=0),)

    return turned


TINY = 1e-30  # a layer without any gradient: nothing to divide by


def moments(rows: Gradients) -> tuple[Doubles, Doubles]:
    """Whose means are the second moments: of deltas (d_out, d_out) and inputs (d_in + bias, d_in + bias) where rows are
    outer products (arXiv:1503.05671 eq. 1); else E[G G^T] and E[G^T G] of the gradients as matrices
    (arXiv:1802.09568)."""
    if rows.is_factored:
        inputs, deltas = map(double, factors_of(rows))
        return deltas.T @ deltas, inputs.T @ inputs
    matrices = double(rows.whole()).reshape(len(rows), *rows.layer.shape)
    left = np.tensordot(matrices, matrices, axes=([0, 2], [0, 2]))
    return left, np.tensordot(matrices, matrices, axes=([0, 1], [0, 1]))


def damped_inverse(matrix: Floats | Doubles, damping: float) -> Doubles:
    """(M + damping * tr(M) / p I)^-1."""
    p = len(matrix)
    damped = matrix.astype(np.float64)
    damped[np.diag_indices(p)] += max(damping * float(np.trace(matrix)) / p, TINY)
    return double(np.linalg.inv(damped))


def bytes_of(curvature: Curvature) -> int:
    """What it holds in memory."""
    names = [field.name for field in fields(curvature)]  # type: ignore[arg-type]
    return sum(v.nbytes for name in names if isinstance(v := getattr(curvature, name), np.ndarray))


def single(values: NDArray[Any]) -> Floats:
    """float32"""
    return values.astype(np.float32, copy=False)


def double(values: NDArray[Any]) -> Doubles:
    """float64"""
    return values.astype(np.float64, copy=False)


def factors_of(gradients: Gradients) -> tuple[Floats, Floats]:
    """Inputs with the bias's ones, and deltas."""
    assert gradients.deltas is not None
    return gradients.with_bias(), gradients.deltas
