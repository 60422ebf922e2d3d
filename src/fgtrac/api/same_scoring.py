"""Factors that are added to a trace are of the loss and the layers that its factors are of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fgtrac.api.leftovers import are_close
from fgtrac.api.scored_rows import ScoredRows
from fgtrac.errors import ScoreError
from fgtrac.score.factor_files import ShardHead, State, losses_of, losses_path
from fgtrac.score.factors import FactorPass
from fgtrac.score.gradients import Layer
from fgtrac.store.tensor_files import open_tensors
from fgtrac.store.trace_dir import TraceDir


def check_same_loss(
    trace: TraceDir, path: str, head: ShardHead, state: State, rows: ScoredRows, factors: FactorPass
) -> None:
    """Compare the losses of a few rows of a shard at `path`, made earlier at `state`, with what `factors` (over a model
    in that state, in eval mode) gives now. ScoreError where they are of different losses."""
    where, batch = rows.some(head.start, head.stop)
    then = losses_of(open_tensors(trace.plain(losses_path(path))), head)[where - head.start]
    now = factors(batch).losses
    if not are_close(now, then):
        worst = int(np.abs(now - then).argmax()) if now.shape == then.shape else 0
        raise ScoreError(
            f"the factors in {trace.path.name} are of another loss or forward: at step {state.step} row {where[worst]} "
            f"has the loss {then[worst]:.6g} there and {now[worst]:.6g} now; give the loss= and forward= of the first "
            "scoring, since scores of two losses do not add up"
        )


def check_named_layers(before: Sequence[Layer], wanted: str | Sequence[str] | None) -> None:
    """ScoreError where `wanted` names others than the layers of the factors that there are."""
    names = [layer.name for layer in before]
    if names and wanted not in (None, "all") and names != ([wanted] if isinstance(wanted, str) else list(wanted or ())):
        raise ScoreError(
            f"the trace has factors of {', '.join(map(repr, names))} and layer= is {wanted!r:.80}; "
            "leave layer= out, to score the same layers at further checkpoints"
        )


def check_all_layers(before: Sequence[Layer], layers: Sequence[Layer]) -> None:
    """ScoreError where all `layers` of a model are more than those of the factors that there are."""
    names = [[repr(layer.name) for layer in some] for some in (before, layers)]
    if names[0] != names[1]:
        raise ScoreError(
            f"the trace has factors of {', '.join(names[0])} and layer='all' means {', '.join(names[1])}; leave "
            "layer= out, to score the same layers at further checkpoints"
        )
