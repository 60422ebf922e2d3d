"""A user's `collate_fn` under Ray Data: it gets batches in the format that it asks for, without the rows' numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from ray.data.collate_fn import (
    ArrowBatchCollateFn,
    NumpyBatchCollateFn,
    PandasBatchCollateFn,
    is_tensor_batch_type,
)
from ray.data.util.torch_utils import move_tensors_to_device
from ray.train.torch import get_device
from ray.train.utils import _in_ray_train_worker

from fgtrac.frameworks.ray_batches import apart


def apart_from_numbers(collate: Callable[[Any], Any]) -> Any:
    """One of Ray's classes of the same format, which gives the numbers of a batch's rows and what `collate` makes."""
    kinds = (ArrowBatchCollateFn, NumpyBatchCollateFn, PandasBatchCollateFn)
    kind = next((kind for kind in kinds if isinstance(collate, kind)), NumpyBatchCollateFn)  # a function's is numpy

    class Apart(kind):  # type: ignore[misc, valid-type]
        def __call__(self, batch: Any) -> tuple[NDArray[Any], Any]:
            bare, numbers = apart(batch)
            return numbers, collate(bare)

    return Apart()


def finalized(device: Any) -> Callable[[Any], Any]:
    """What Ray does with a collated batch, and not with a pair: tensors go to the device, and their chunks together."""
    if device == "auto":
        device = get_device() if _in_ray_train_worker() else "cpu"

    @torch.no_grad()
    def move(batch: Any) -> Any:
        return move_tensors_to_device(batch, device=device) if is_tensor_batch_type(batch) else batch

    return move
