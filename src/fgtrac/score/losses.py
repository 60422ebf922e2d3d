"""Any loss, taken for each sample: torch's reductions are undone, and what mixes samples is refused."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fgtrac.errors import ScoreError

PerSample = Callable[[Any, Any], torch.Tensor]
_REDUCTIONS = ("none", "mean", "sum", "batchmean")
_REMEDY = 'give one that returns a loss for each sample, for instance with reduction="none"'
_ELEMENTWISE = (
    nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss, nn.KLDivLoss,
    nn.PoissonNLLLoss, nn.SoftMarginLoss,
    F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits, F.kl_div, F.poisson_nll_loss, F.soft_margin_loss,
)  # fmt: skip


def per_sample(loss: Callable[..., Any]) -> PerSample:
    """(outputs, targets) -> losses (n,), of a loss module, a function, or a `functools.partial` of one.

    What has a `reduction` (torch's losses do) is taken without it, and further dimensions are then reduced within each
    sample as it says: "mean" over them (of tokens over those that `ignore_index` counts), or "sum". With class weights
    a sample's term is w_y times its loss, as with reduction="none". For a cross entropy the classes may also be the
    last dimension, (n, T, V) with targets (n, T), unless torch itself would read them as (n, C, d).

    The function raises ScoreError where one number comes back for several samples, ValueError where a sample has more
    than one and no reduction says what to do with them, or torch would pair each output with each target, and TypeError
    for anything but floating point tensors.
    """
    plain, reduction = _without_reduction(loss)
    is_elementwise = _is_elementwise(loss)
    ignored = _ignore_index(loss)

    def losses(outputs: Any, targets: Any) -> torch.Tensor:
        if ignored is not None:
            outputs = _classes_second(outputs, targets)
        if is_elementwise:
            _refuse_broadcast(outputs, targets)
        terms = plain(outputs, targets)
        if not isinstance(terms, torch.Tensor) or not terms.is_floating_point():
            raise TypeError(f"the loss returned {_kind(terms)}; {_REMEDY}")
        if terms.ndim == 0:
            return _single(terms, outputs, targets)
        if terms.ndim == 1:
            return terms
        return _reduced(terms, targets, reduction, ignored)

    return losses


def check_parts(loss: PerSample, outputs: Any, targets: Any, losses: torch.Tensor) -> None:
    """ScoreError where a sample's loss is another one in a part of its batch: of the first and the second half, and of
    every second sample. `losses` (n,) are those of the whole batch.

    Nothing is compared where outputs and targets are not tensors (or tuples of tensors) of a row for each sample.
    """
    n, whole = len(losses), losses.detach()
    if n < 2 or not _has_rows(outputs, n) or not (targets is None or _has_rows(targets, n)):
        return
    loose = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in (whole, *_tensors(outputs)))
    room = (0.03 if loose else 1e-3) * (whole.abs() + whole.abs().mean())
    for part in (slice(0, n // 2), slice(n // 2, n), slice(0, n, 2), slice(1, n, 2)):
        try:
            with torch.no_grad():
                alone = loss(_rows(outputs, part), _rows(targets, part))
        except (RuntimeError, ValueError, IndexError):  # it takes gradients itself, or knows one size of batches only
            return
        if alone.shape != whole[part].shape:
            return  # the first dimension is not that of samples
        off = (alone - whole[part]).abs() > room[part]  # false where either is NaN, which is said elsewhere
        if off.any():
            raise ScoreError(
                "a loss without per-sample terms: a sample's loss depends on the others of its batch (or on random "
                f"draws), for {int(off.sum())} of {len(off)} samples; use a loss whose term i takes sample i only, not "
                "divided by the size of the batch"
            )


def _tensors(values: Any) -> tuple[torch.Tensor, ...]:
    return (values,) if isinstance(values, torch.Tensor) else tuple(values)


def _has_rows(values: Any, n: int) -> bool:
    parts = values if isinstance(values, tuple | list) else (values,)
    return len(parts) > 0 and all(isinstance(part, torch.Tensor) and part.ndim > 0 and len(part) == n for part in parts)


def _rows(values: Any, part: slice) -> Any:
    if isinstance(values, tuple | list):
        rows = [value[part] for value in values]
        return type(values)(*rows) if hasattr(values, "_fields") else type(values)(rows)
    return values if values is None else values.detach()[part]


def _is_elementwise(loss: Callable[..., Any]) -> bool:
    """Whether it is one of torch's losses that would stretch outputs and targets to a common shape."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    return any(isinstance(loss, kind) if isinstance(kind, type) else loss is kind for kind in _ELEMENTWISE)


def _refuse_broadcast(outputs: Any, targets: Any) -> None:
    if not (isinstance(outputs, torch.Tensor) and isinstance(targets, torch.Tensor)) or outputs.shape == targets.shape:
        return
    raise ValueError(
        f"outputs are of shape {tuple(outputs.shape)} and targets of {tuple(targets.shape)}, which this loss would "
        "pair each with each; give both one shape, for instance by outputs.squeeze(1) in forward"
    )


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
