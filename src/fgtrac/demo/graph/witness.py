"""What the network's forward pass really received, counted from the batches themselves, with nothing of fgtrac."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from fgtrac.demo.graph.network import STEPS, IconNetwork


@contextmanager
def received(nodes: int) -> Iterator[NDArray[np.int64]]:
    """(nodes, 4): how often each node was a seed, and how often at hop 1, 2 and 3, while an `IconNetwork` is trained
    inside the block."""
    counts = np.zeros((nodes, STEPS + 1), dtype=np.int64)

    def look(module: nn.Module, arguments: Any) -> None:
        if isinstance(module, IconNetwork) and module.training:
            (batch,) = arguments
            hops = np.repeat(np.arange(len(batch.num_sampled_nodes)), batch.num_sampled_nodes)
            np.add.at(counts, (batch.n_id.numpy(), hops), 1)

    handle = register_module_forward_pre_hook(look)
    try:
        yield counts
    finally:
        handle.remove()
