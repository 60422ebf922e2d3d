"""What the model said about samples, filed by sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.capture.recorder import Recorder
from fgtrac.capture.roots import Resolved
from fgtrac.capture.use_entries import pieces

MAX_OUTPUTS = 14_000  # float32 numbers that a prediction may have for one sample


def record_predictions(
    recorder: Recorder,
    resolved: Resolved,
    fields: dict[str, Any],
    outputs: torch.Tensor,
    losses: torch.Tensor | None,
    positions: Sequence[int] | None,
) -> None:
    """Write `prediction` entries with these fields: row i of `outputs`, (n, m) or (n,), is about `positions[i]` of the
    resolved data (default: position i); `losses` is (n,).

    ValueError for lengths that do not fit, and for positions that the data do not have.
    """
    where = read_positions("predictions()", resolved, positions)
    said = outputs.detach().float().cpu().reshape(len(outputs), math.prod(outputs.shape[1:])).numpy()
    cost = None if losses is None else losses.detach().float().cpu().reshape(-1).numpy()
    if len(said) != len(where) or (cost is not None and len(cost) != len(where)):
        raise ValueError(f"predictions() got {len(said)} outputs for {len(where)} samples; pass one row for each")
    if said.shape[1] > MAX_OUTPUTS:
        raise ValueError(f"{said.shape[1]:,} outputs a sample do not fit an entry, {MAX_OUTPUTS:,} do; pass a part")
    placement = resolved.placement
    for block, here in resolved.by_block(where):
        for piece in pieces(here, 8 + 4 * said.shape[1]):
            columns = {"ordinals": placement.ordinals[where[piece]], "outputs": said[piece].reshape(-1)}
            if cost is not None:
                columns["losses"] = cost[piece]
            recorder.record("prediction", {**fields, "block": block, **columns})


def read_positions(verb: str, resolved: Resolved, positions: Sequence[int] | None) -> NDArray[np.int64]:
    """The positions that a verb was given, by default all. ValueError for one that the data do not have, TypeError for
    a mask, and for what is no whole number."""
    given = np.asarray(range(len(resolved.rows)) if positions is None else positions)
    if len(given) and given.dtype.kind not in "iu":
        raise TypeError(
            f"{verb} got positions of {given.dtype}; give whole numbers, such as those where a mask is true"
        )
    where = given.astype(np.int64)
    outside = where[(where < 0) | (where >= len(resolved.rows))]
    if len(outside):
        raise ValueError(f"{verb} got position {outside[0]}; positions are 0 to {len(resolved.rows) - 1}")
    return where
