"""What PyTorch lets be seen from outside of a batch's memory and of an optimizer's kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Fused kernels update parameters without moving their version counter."""
    return any(group.get("fused") for group in optimizer.param_groups)


def skipped_inside(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a GradScaler told the fused kernel of infinite gradients: then it was called and changed nothing."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def memory_of(tensor: torch.Tensor, whole: bool = False) -> int:
    """The address of the tensor's storage; 0 where it has none, or with `whole` where it is a view of a larger one.

    A view of the data set itself would stand for every batch, so only whole storages are worth remembering.
    """
    try:
        storage = tensor.untyped_storage()
        return 0 if whole and storage.nbytes() != tensor.nbytes else storage.data_ptr()
    except RuntimeError:
        return 0  # sparse, functional or fake: it cannot be recognised


def tensors_in(data: Any, depth: int = 3) -> Iterable[torch.Tensor]:
    """The tensors of a batch or of a call's arguments, outermost first; mappings, lists and tuples are opened."""
    if isinstance(data, torch.Tensor):
        yield data
    elif depth and isinstance(data, Mapping):
        for value in data.values():
            yield from tensors_in(value, depth - 1)
    elif depth and isinstance(data, list | tuple):
        for value in data:
            yield from tensors_in(value, depth - 1)
