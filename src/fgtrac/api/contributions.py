"""Contributions in the log: each training sample's share at one checkpoint, toward the mean loss of the validation
samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.ledger import Ledger
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.use_entries import pieces
from fgtrac.score.cache import Cache
from fgtrac.score.factor_files import Rows, State
from fgtrac.score.kernel import scores
from fgtrac.score.methods import Method, prepare_role
from fgtrac.store.trace_dir import TraceDir

TARGET = "validation"


def record_contributions(trace: TraceDir, recorder: Recorder, ledger: Ledger, state: State, method: Method) -> None:
    """Compute the shares of one state from its factors and write those that the log does not have yet."""
    cache = Cache(trace, ledger.artifacts, [state])
    rows = cache.rows("train")
    missing = [
        (block, here)
        for block, here in parts_of(rows)
        if not ledger.has_contribution(state.ref, TARGET, str(method), block, rows.ordinals[here])
    ]
    if not missing:
        return
    values = scores(cache, prepare_role(cache, "validation", method), 0, len(rows))[:, 0]
    fields: dict[str, Any] = {"checkpoint": list(state.ref), "step": state.step, "target": TARGET}
    fields |= {"method": str(method), "parameters": parameters_of(cache, 0, method)}
    for block, here in missing:
        said = {**fields, "block": block, "ordinals": rows.ordinals[here], "scores": values[here]}
        ledger.take("contribution", said, recorder.record("contribution", said))


def parameters_of(cache: Cache, k: int, method: Method) -> dict[str, Any]:
    """What computing the scores at state k of a cache again takes."""
    said: dict[str, Any] = {
        "factors": cache.states[k].folder,
        "layers": [layer.name for layer in cache.layers],
        "learning_rates": list(cache.learning_rates(k)),
    }
    return said | ({"damping": method.damped_by} if method.damped_by else {})


def parts_of(rows: Rows) -> Iterator[tuple[bytes, NDArray[np.intp]]]:
    """Rows of one block, as many as fit an entry."""
    which = np.zeros(len(rows), np.uint16) if rows.which is None else rows.which
    for number, block in enumerate(rows.blocks):
        for here in pieces(np.flatnonzero(which == number), 8):
            yield block, here
