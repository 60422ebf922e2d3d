"""What a collate function made of the samples that were drawn for a batch: does the batch still hold as many?

A count can show that samples were dropped or laid together, never which: such a batch is recorded as holding at most
the samples that were drawn. Samples that were mixed (mixup, CutMix) keep their count, and all of them take part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from fgtrac.capture.graph import open_batch

_DEPTH = 3
_LOOKED_AT = 64  # things in one container


def holds_other_count(drawn: int, batch: Any) -> bool:
    """Whether nothing in a delivered batch counts as many as were `drawn` for it. On the hot path: the first tensor of
    a batch settles the usual case."""
    kind = type(batch)
    first = batch[0] if kind in (list, tuple) and batch else next(iter(batch.values()), None) if kind is dict else batch
    if isinstance(first, torch.Tensor) and first.dim() and first.shape[0] == drawn:
        return False
    shapes, lengths = set[tuple[int, ...]](), set[int]()
    for shape, length in _counts(batch, drawn, _DEPTH):
        if shape:
            shapes.add(shape)
        else:
            lengths.add(length)
    rows = {shape[0] for shape in shapes}
    if batch is None or rows == {0} or (lengths == {0} and not rows):
        return drawn > 0  # nothing is left
    if drawn < 2 or not (rows or lengths) or drawn in rows:
        return False  # one sample, of any shape; or nothing that can be counted
    agreed = max(rows) if len(rows) == 1 else 0  # by all tensors
    is_time_first = bool(rows) and all(shape[1:2] == (drawn,) for shape in shapes)
    if drawn in lengths or is_time_first:  # fewer rows overrule a list's length, which may be that of anything
        return 0 < agreed < drawn and not (drawn in lengths and is_time_first)
    return not agreed > drawn or agreed % drawn != 0  # else views or pieces, as many of each sample


def _counts(held: Any, drawn: int, depth: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """The shape of each tensor, and the length of each list whose items are alike, in a batch; of a batch of graphs
    how many there are. A list of other things has a place for each field of a sample, not for each sample; and what
    stands in a list with a place for each sample has no rows of samples, unless tensors are all there is."""
    if isinstance(held, torch.Tensor | np.ndarray):
        if held.ndim:
            yield tuple(held.shape), 0
        return
    if isinstance(held, str | bytes | int | float) or held is None or depth < 0:
        return
    if isinstance(held, Mapping):
        inner = list(held.values())
    elif isinstance(held, list | tuple):
        inner = list(held)
        kinds = {_kind_of(one) for one in inner[:_LOOKED_AT]}
        if len(kinds) <= 1:
            yield (), len(inner)
            if len(inner) == drawn and (depth < _DEPTH or not isinstance(inner[0], torch.Tensor | np.ndarray)):
                return
    elif open_batch(held) is not None and type(graphs := getattr(held, "num_graphs", None)) is int:
        yield (graphs,), 0
        return
    else:
        inner = list(getattr(held, "__dict__", {}).values())
    for one in inner[:_LOOKED_AT]:
        yield from _counts(one, drawn, depth - 1)


def _kind_of(item: Any) -> Any:
    if isinstance(item, torch.Tensor | np.ndarray):
        return item.ndim, item.dtype
    return (type(item), frozenset(map(_kind_of, item[:_LOOKED_AT]))) if isinstance(item, list | tuple) else type(item)
