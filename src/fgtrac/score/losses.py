"""Any loss, taken for each sample: torch's reductions are undone, and what mixes samples is refused."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fgtrac.errors import ScoreError

PerSample = Callable[[Any, Any], torch.Tensor]
_REDUCTIONS = ("none", "mean", "sum", "batchmean")
_REMEDY = 'give one that returns a loss for each sample, for instance with reduction="none"'


def per_sample(loss: Callable[..., Any]) -> PerSample:
    """(outputs, targets) -> losses (n,), of a loss module, a function, or a `functools.partial` of one.

    What has a `reduction` (torch's losses do) is taken without it, and further dimensions are then reduced within each
    sample as it says: "mean" over them (of tokens over those that `ignore_index` counts), or "sum". With class weights
    a sample's term is w_y times its loss, as with reduction="none". For a cross entropy the classes may also be the
    last dimension, (n, T, V) with targets (n, T), unless torch itself would read them as (n, C, d).

    The function raises ScoreError where one number comes back for several samples, ValueError where a sample has more
    than one and no reduction says what to do with them, and TypeError for anything but floating point tensors.
    """
    plain, reduction = _without_reduction(loss)
    ignored = _ignore_index(loss)

    def losses(outputs: Any, targets: Any) -> torch.Tensor:
        if ignored is not None:
            outputs = _classes_second(outputs, targets)
        terms = plain(outputs, targets)
        if not isinstance(terms, torch.Tensor) or not terms.is_floating_point():
            raise TypeError(f"the loss returned {_kind(terms)}; {_REMEDY}")
        if terms.ndim == 0:
            return _single(terms, outputs, targets)
        if terms.ndim == 1:
            return terms
        return _reduced(terms, targets, reduction, ignored)

    return losses


def _without_reduction(loss: Callable[..., Any]) -> tuple[Callable[..., Any], str | None]:
    """The loss as if made with reduction="none", and the reduction that it has; None where it has none to undo."""
    if isinstance(loss, nn.Module):
        reduction = getattr(loss, "reduction", None)
        if reduction not in _REDUCTIONS:
            return loss, None
        plain = copy.copy(loss)  # shares its tensors, so class weights follow the module to a device
        plain.reduction = "none"  # type: ignore[assignment]
        return plain, str(reduction)
    reduction = _default_of(loss, "reduction")
    if reduction not in _REDUCTIONS:
        return loss, None
    return functools.partial(loss, reduction="none"), str(reduction)


def _ignore_index(loss: Callable[..., Any]) -> int | None:
    """The target that a cross entropy does not count; None for losses without one."""
    index = getattr(loss, "ignore_index", None) if isinstance(loss, nn.Module) else _default_of(loss, "ignore_index")
    return index if isinstance(index, int) else None


def _default_of(function: Callable[..., Any], name: str) -> Any:
    """What a parameter is when it is not given; a `partial` may have set it."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions have none
        return None
    return parameters[name].default if name in parameters else None


def _classes_second(outputs: Any, targets: Any) -> Any:
    """Outputs (n, d..., C) for targets (n, d...) as torch wants them, (n, C, d...)."""
    if not (isinstance(outputs, torch.Tensor) and isinstance(targets, torch.Tensor)):
        return outputs
    if targets.is_floating_point() or targets.ndim < 2 or outputs.ndim != targets.ndim + 1:
        return outputs
    as_torch_has_it = outputs.shape[:1] + outputs.shape[2:] == targets.shape
    return outputs.movedim(-1, 1) if outputs.shape[:-1] == targets.shape and not as_torch_has_it else outputs


def _single(term: torch.Tensor, outputs: Any, targets: Any) -> torch.Tensor:
    """One number: the loss of a batch of one, otherwise no loss of samples."""
    counts = {len(value) for value in (outputs, targets) if isinstance(value, torch.Tensor) and value.ndim}
    if counts == {1}:
        return term.reshape(1)
    raise ScoreError(f"a loss without per-sample terms: one number for the whole batch; {_REMEDY}")


def _reduced(terms: torch.Tensor, targets: Any, reduction: str | None, ignored: int | None) -> torch.Tensor:
    """(n, ...) to (n,) as the loss's own reduction does within a sample."""
    if reduction in (None, "none"):
        raise ValueError(
            f"the loss returned shape {tuple(terms.shape)}, not one number a sample; sum or average the rest"
        )
    flat = terms.flatten(1)
    if reduction != "mean":
        return flat.sum(1)
    if ignored is None or not isinstance(targets, torch.Tensor) or targets.shape != terms.shape:
        return flat.mean(1)
    counted = (targets != ignored).flatten(1).sum(1)
    return flat.sum(1) / counted.clamp(min=1)


def _kind(value: Any) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__
