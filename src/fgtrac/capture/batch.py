"""What a watched loader hands over: one batch, and the pass over the loader that it belongs to."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(eq=False, slots=True)
class Batch:
    """One delivered batch: the positions that were drawn for it, and what has become of it so far."""

    iteration: Iteration
    number: int
    positions: array[int]
    settled: bool = False
    losses: NDArray[np.float16] | None = None


@dataclass(eq=False, slots=True)
class Iteration:
    """One pass over a watched loader."""

    loader: int
    epoch: int
    trains: bool  # the loader was watched with the role "train"
    ahead: bool = False  # batches were delivered faster than consumed: order can only be assumed
    delivered: int = 0
