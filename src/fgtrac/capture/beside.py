"""Whether rows hold more than what their content digests are of: a second tensor, a second file, a mask."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

LISTED = {"file": ("samples", "imgs", "data"), "tensor": ("data",)}  # where data sets hold what is digested
NO_ROWS = ("classes",)  # lists of torchvision's data sets that are not one item a row


def holds_more(data: Any, rows: int, described: str | None) -> bool:
    """Whether a row holds something beside what `described` (of `source_digests`) says was digested of it, labels (one
    number a row) apart. What the data set reads as it gives a row, from elsewhere, is not seen."""
    kind = (described or "").partition(" ")[0]
    if kind not in LISTED or isinstance(data, torch.Tensor | np.ndarray):
        return False
    if isinstance(data, TensorDataset):
        return not all(map(_is_of_numbers, data.tensors[1:]))
    held: Mapping[str, Any] = getattr(data, "__dict__", {})
    first = next((held[name] for name in LISTED[kind] if _is_of_rows(held.get(name), rows)), None)
    others = [v for name, v in held.items() if name not in NO_ROWS and v is not first and _is_of_rows(v, rows)]
    return (kind == "file" and _lists_more(first)) or not all(map(_is_of_numbers, others))


def _is_of_rows(values: Any, rows: int) -> bool:
    """Whether there is one item a row."""
    if isinstance(values, torch.Tensor | np.ndarray):
        return values.ndim > 0 and len(values) == rows
    return isinstance(values, list | tuple) and len(values) == rows


def _is_of_numbers(values: Any) -> bool:
    """Whether each row has one number and no more: a label."""
    if isinstance(values, torch.Tensor | np.ndarray):
        return values.ndim > 0 and int(np.prod(values.shape[1:], dtype=np.int64)) == 1
    return all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, Number) or (isinstance(value, torch.Tensor) and value.numel() == 1)


def _lists_more(listed: Any) -> bool:
    """Whether a list of (path, label) has more in it than that."""
    return not all(_is_number(part) for item in listed if isinstance(item, tuple | list) for part in item[1:])
