"""The learning rate of one layer's weight: that of the parameter group which holds it, at the last applied update."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fgtrac.capture.step import Grounding
from fgtrac.errors import ScoreError


def rate_now(
    grounding: Grounding, weight: torch.Tensor, optimizer: torch.optim.Optimizer | None, rates: Sequence[float]
) -> float:
    """While training goes on: by the optimizers that have stepped under trace, else by the one that is given, else the
    only rate of the checkpoint. ValueError where none of them tells."""
    seen = grounding.learning_rate_of(weight)
    if seen is not None:
        return seen
    group = _group_of(weight, optimizer)
    if optimizer is not None and group is not None:
        return float(optimizer.param_groups[group]["lr"])
    if len(set(rates)) == 1:
        return float(rates[0])
    raise ValueError(
        "the learning rate of a scored layer is not known: no optimizer that has stepped under trace holds its weight; "
        "pass optimizer= to checkpoint(), and the model whose parameters it updates"
    )


def rate_then(
    step: int, weight: torch.Tensor, optimizer: torch.optim.Optimizer | None, rates: Sequence[float]
) -> float:
    """At a checkpoint of the past, whose rates (one a group) the log has. ScoreError where they do not tell: which of
    several optimizers a rate is of, the log does not say."""
    if len(set(rates)) == 1:
        return float(rates[0])
    group = _group_of(weight, optimizer)
    if optimizer is not None and group is not None and len(optimizer.param_groups) == len(rates):
        return float(rates[group])
    if not rates:
        raise ScoreError(
            f"the checkpoint of step {step} has no learning rate; record it with optimizer= given to checkpoint()"
        )
    said = ", ".join(f"{rate:g}" for rate in rates)
    raise ScoreError(
        f"the checkpoint of step {step} has {len(rates)} learning rates ({said}), one a parameter group; pass the "
        "optimizer= of as many groups that trained the model to score(), or, where several did, make factors 'now'"
    )


def _group_of(weight: torch.Tensor, optimizer: torch.optim.Optimizer | None) -> int | None:
    groups = optimizer.param_groups if optimizer is not None else []
    return next((n for n, group in enumerate(groups) if any(p is weight for p in group["params"])), None)
