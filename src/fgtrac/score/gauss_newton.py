"""The Gauss-Newton matrix of a layer at one position a sample: the mean of H (x) x x^T over samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgtrac.score.gradients import Floats, Layer, with_ones


class GaussNewton:
    """Sums H_i (x) x_i x_i^T over the samples of some batches, with H_i (d_out, d_out) the Hessian of the loss in the
    layer's outputs; rows and columns as the layer's gradients are written down (row by row of the weight)."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._sum = np.zeros((layer.d_out, layer.shape[1], layer.d_out, layer.shape[1]))
        self._samples = 0

    def add(self, inputs: Floats, hessians: Floats) -> None:
        """A batch: inputs (n, d_in) without the bias's ones, hessians (n, d_out, d_out)."""
        x = with_ones(inputs) if self.layer.bias else inputs
        for a in range(self.layer.d_out):
            for b in range(a, self.layer.d_out):
                block = x.T @ (x * hessians[:, a, b, None])
                self._sum[a, :, b, :] += block
                if b > a:
                    self._sum[b, :, a, :] += block
        self._samples += len(x)

    def mean(self) -> Floats:
        """(p, p) float32, p = layer.size."""
        whole: NDArray[np.float64] = self._sum.reshape(self.layer.size, self.layer.size)
        return (whole / max(1, self._samples)).astype(np.float32)
