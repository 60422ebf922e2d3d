"""Per-sample gradients of one layer, written down without building them where that can be done.

A linear layer that sees each sample at one position has the gradient `delta x^T` (with a one appended to x for the
bias): the pair is kept. Where a layer sees a sample at several positions the gradient is a sum of such products: it
is kept whole where it is small, and otherwise through a random Kronecker projection `P_out (sum delta x^T) P_in^T`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError

Form = Literal["factored", "dense", "projected"]
Floats = NDArray[np.float32]

_TYPES: dict[str, type] = {"name": str, "form": str, "d_in": int, "d_out": int, "bias": bool}
_PROJECTION: dict[str, type] = {"k_in": int, "k_out": int, "seed": int}


@dataclass(frozen=True, slots=True)
class Layer:
    """How the gradients of the layer called `name` (its qualified name in the model) are written down.

    `d_in` inputs (without the bias), `d_out` outputs. factored: inputs (n, d_in) and deltas (n, d_out). dense: the
    gradient (n, d_out * (d_in + bias)), row by row of the weight, the bias last in each row. projected:
    (n, k_out * k_in), by matrices that follow from `seed`; `error` is the root mean square error of its inner
    products over that of the exact ones, as measured when the layer was first seen.
    """

    name: str
    form: Form
    d_in: int
    d_out: int
    bias: bool
    k_in: int = 0
    k_out: int = 0
    seed: int = 0
    error: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """The gradient as a matrix: (rows, columns)."""
        return (self.k_out, self.k_in) if self.form == "projected" else (self.d_out, self.d_in + self.bias)

    @property
    def size(self) -> int:
        """Numbers in one gradient."""
        rows, columns = self.shape
        return rows * columns

    @property
    def columns(self) -> dict[str, int]:
        """What is kept for each sample: name -> width."""
        if self.form == "factored":
            return {"inputs": self.d_in, "deltas": self.d_out}
        return {"gradients": self.size}

    def as_json(self) -> dict[str, Any]:
        """Plain data, of which `parse_layer` makes the layer again."""
        said: dict[str, Any] = {name: getattr(self, name) for name in _TYPES}
        if self.form == "projected":
            said |= {name: getattr(self, name) for name in _PROJECTION}
            said |= {"error": self.error} if self.error is not None else {}
        return said


def parse_layer(value: Any) -> Layer:
    """A layer from plain data. FormatError for anything that is none."""
    if not isinstance(value, dict) or value.get("form") not in ("factored", "dense", "projected"):
        raise FormatError(f"{value!r:.80} describes no layer")
    types = _TYPES | (_PROJECTION if value["form"] == "projected" else {})
    error = value.get("error")
    optional = {"error"} if value["form"] == "projected" else set()
    if set(value) - optional != set(types) or any(type(value[name]) is not kind for name, kind in types.items()):
        raise FormatError(f"{value!r:.80} describes no layer; it has the fields {', '.join(types)}")
    if "error" in value and not (type(error) is float and 0 <= error < float("inf")):
        raise FormatError(f"the error of a projection is a number, not {error!r:.40}")
    sizes = [value[name] for name in ("d_in", "d_out", "k_in", "k_out") if name in types]
    if not all(1 <= size < 1 << 31 for size in sizes):
        raise FormatError(f"a layer of sizes {sizes}; each is at least 1")
    return Layer(**value)


PARTS = ("inputs", "deltas", "dense", "extended")


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """The gradients of n samples (or targets) in one layer: `inputs` (n, d_in) and `deltas` (n, d_out), or `dense`
    (n, layer.size); float32. Targets may be dense where the layer is factored; then both sides are multiplied out.

    `extended` is what `with_bias` gives, where it is at hand already: `inputs` is then a view of it."""

    layer: Layer
    inputs: Floats | None = None
    deltas: Floats | None = None
    dense: Floats | None = None
    extended: Floats | None = None

    def __len__(self) -> int:
        some = self.deltas if self.deltas is not None else self.dense
        assert some is not None
        return len(some)

    @property
    def is_factored(self) -> bool:
        """Whether the two factors are kept, not their product."""
        return self.dense is None

    def whole(self) -> Floats:
        """(n, layer.size): the gradients multiplied out."""
        if self.dense is not None:
            return self.dense
        assert self.deltas is not None
        return (self.deltas[:, :, None] * self.with_bias()[:, None, :]).reshape(-1, self.layer.size)

    def with_bias(self) -> Floats:
        """(n, d_in + bias): the inputs, and a column of ones where the layer has a bias."""
        assert self.inputs is not None
        if not self.layer.bias:
            return self.inputs
        return self.extended if self.extended is not None else with_ones(self.inputs)

    def squared_norms(self) -> Floats:
        """(n,): the squared length of each gradient."""
        if self.dense is not None:
            return row_dots(self.dense, self.dense)
        assert self.inputs is not None
        assert self.deltas is not None
        inputs = row_dots(self.inputs, self.inputs)
        return (inputs + np.float32(self.layer.bias)) * row_dots(self.deltas, self.deltas)

    def scaled(self, factors: Floats | float) -> Gradients:
        """Each gradient times its factor, (n,) or one for all; a copy."""
        by = np.asarray(factors, dtype=np.float32)
        by = by[:, None] if by.ndim else by
        if self.dense is not None:
            return replace(self, dense=self.dense * by)
        assert self.deltas is not None
        return replace(self, deltas=self.deltas * by)

    def rows(self, which: NDArray[np.intp] | slice) -> Gradients:
        """The gradients of some samples."""
        parts = {n: v[which] for n in PARTS if (v := getattr(self, n)) is not None}
        return Gradients(self.layer, **parts)


def with_ones(inputs: Floats) -> Floats:
    """(n, d + 1): the inputs with a column of ones for the bias."""
    return np.concatenate([inputs, np.ones((len(inputs), 1), dtype=np.float32)], axis=1)


def row_dots(left: Floats, right: Floats) -> Floats:
    """(n,): the inner product of each row of two (n, d) arrays."""
    dots: Floats = np.einsum("ij,ij->i", left, right)
    return dots


def concatenate(parts: list[Gradients]) -> Gradients:
    """Batches of one layer, one after another."""
    first = parts[0]
    names = [n for n in ("inputs", "deltas", "dense") if getattr(first, n) is not None]
    return Gradients(first.layer, **{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})
