"""What PyTorch lets be seen from outside of a batch's memory and of an optimizer's kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from fgtrac.capture.graph import open_batch

_SEQUENCES = (list, tuple)
_MAPPINGS = (dict, Mapping)  # the usual one first
_PLAIN = frozenset((int, float, bool, str, bytes, type(None)))


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Fused kernels update parameters without moving their version counter."""
    return any(group.get("fused") for group in optimizer.param_groups)


def leaves_behind(tensors: Iterable[torch.Tensor], limit: int = 10_000) -> list[torch.nn.Parameter]:
    """The parameters that tensors were computed from, as far as `limit` steps back tell."""
    found: list[torch.nn.Parameter] = []
    nodes: list[Any] = [tensor.grad_fn for tensor in tensors]
    seen: set[Any] = set()
    while nodes and len(seen) < limit:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, torch.nn.Parameter):
            found.append(leaf)
        nodes += [before for before, _ in node.next_functions]
    return found


def all_zero(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether no gradient holds anything: one parameter alone may have a true gradient of zero."""
    return not any(p.grad is not None and bool(p.grad.any()) for p in parameters)


def address_of(tensor: torch.Tensor) -> int:
    """Where the tensor's values begin in memory; 0 where it has none (empty, sparse, functional or fake)."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0


def tensors_in(data: Any, depth: int = 3) -> list[torch.Tensor]:
    """The tensors of a batch or of a call's arguments, in order; mappings, lists, tuples and graphs are
    opened.

    On the hot path, where each line costs a microsecond of cold code: no generators, and no call a tensor.
    """
    found = []
    for item in data if isinstance(data, _SEQUENCES) else (data,):
        if isinstance(item, torch.Tensor):
            found.append(item)
        elif depth and isinstance(item, _SEQUENCES):
            found += tensors_in(item, depth - 1)
        elif depth and isinstance(item, _MAPPINGS):
            found += tensors_in(list(item.values()), depth - 1)
        elif depth and type(item) not in _PLAIN and (held := open_batch(item)) is not None:
            found += tensors_in(list(held.values()), depth - 1)
    return found


class Later:
    """A flag on a device, read when the device has it: asking costs no wait where time has passed since."""

    def __init__(self, flag: torch.Tensor) -> None:
        self._here = flag.detach().to("cpu", non_blocking=True)  # a page-locked copy, made in the device's turn
        self._arrived: Any = None
        if flag.device.type != "cpu":
            self._arrived = torch.Event(flag.device)
            self._arrived.record()

    def __bool__(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._here)
