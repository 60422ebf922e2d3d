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
    rows, lengths = set[int](), set[int]()
    for is_row, count in _counts(batch, _DEPTH):
        (rows if is_row else lengths).add(count)
    if batch is None or rows == {0} or (lengths == {0} and not rows):
        return drawn > 0  # nothing is left
    if drawn < 2 or not (rows or lengths):
        return False  # one sample, of any shape; or nothing that can be counted
    several = len(rows) == 1 and max(rows) > drawn and max(rows) % drawn == 0  # views or pieces, as many of each sample
    return drawn not in rows and drawn not in lengths and not several


def _counts(held: Any, depth: int) -> Iterator[tuple[bool, int]]:
    """The leading dimension of each tensor (True) and the length of each list (False) in a batch; of a batch of graphs
    how many there are."""
    if isinstance(held, torch.Tensor | np.ndarray):
        if held.ndim:
            yield True, int(held.shape[0])
        return
    if isinstance(held, str | bytes | int | float) or held is None or depth < 0:
        return
    if isinstance(held, Mapping):
        inner = list(held.values())
    elif isinstance(held, list | tuple):
        inner = list(held)
        yield False, len(inner)
    elif open_batch(held) is not None and type(graphs := getattr(held, "num_graphs", None)) is int:
        yield True, graphs
        return
    else:
        inner = list(getattr(held, "__dict__", {}).values())
    for one in inner[:_LOOKED_AT]:
        yield from _counts(one, depth - 1)
