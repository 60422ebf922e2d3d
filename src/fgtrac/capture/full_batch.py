"""Full-batch training on a graph: each pass is one batch, the graph itself."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from fgtrac.capture.batch import Iteration
from fgtrac.capture.draws import MACHINE, VERSION
from fgtrac.capture.graph import GraphNodes
from fgtrac.capture.hops import Hops, whole_graph
from fgtrac.capture.sampler import Order
from fgtrac.capture.watches import Watch


class SeedPasses:
    """Passes over the graph behind `nodes`: these are the seeds, and what `steps` message-passing steps carry to them,
    and what they do not, their neighbours."""

    def __init__(self, watch: Watch, nodes: GraphNodes, steps: int) -> None:
        self.watch = watch
        self.graph = nodes.data
        self._nodes = nodes
        self._steps = steps
        self._seeds = array("I", nodes.numbers.astype(np.uint32).tobytes())
        self._hops: Hops | None = None
        self._counted: tuple[Any, int] = None, 0  # the edges that the hops were counted over, and their version
        batching = {"rows": len(nodes), "batch_size": len(nodes), "drop_last": False}
        self._order = Order("SequentialSampler", batching | {"torch": VERSION, "machine": MACHINE})

    def begin(self) -> Iteration:
        """One more pass: its order, and its only batch."""
        watch = self.watch
        watch.grounding.restarted(watch.number)
        iteration = Iteration(watch.number, watch.epochs, watch.trains)
        watch.epochs += 1
        watch.orders.announce_order(iteration, self._order)
        watch.grounding.deliver(iteration, self._seeds, self.graph, self._count())
        return iteration

    def _count(self) -> Hops:
        """The hops, counted anew where the graph has other edges than before."""
        edges = self.graph.edge_index
        has_version = isinstance(edges, torch.Tensor) and not edges.is_inference()
        version = edges._version if has_version else -1
        if self._hops is None or version < 0 or self._counted[0] is not edges or self._counted[1] != version:
            self._hops = whole_graph(self.graph, self._nodes.numbers, self._steps)
            self._counted = edges, version
        return self._hops


class FullBatch:
    """Delivers a graph once each time it is iterated over; `find` gives the passes for the seeds that it has now."""

    def __init__(self, find: Callable[[], SeedPasses]) -> None:
        self._find = find
        self._passes = find()

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        iteration = self._begin()
        yield self._passes.graph
        if iteration is not None and self._passes.watch.is_here:
            self._passes.watch.grounding.exhausted(iteration)

    def _begin(self) -> Iteration | None:
        if not self._passes.watch.is_here:
            return None
        self._passes = self._find()
        return self._passes.begin()
