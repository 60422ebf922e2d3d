"""What the network's forward pass really received, counted along the edges of the batches, with nothing of fgtrac."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch_geometric.data import Data

from fgtrac.demo.graph.network import STEPS
from fgtrac.demo.truth import Update

Numbers = NDArray[np.int64]


class Witness:
    """Called with every batch that a network receives: `updates` are its nodes, step by step and hop by hop."""

    def __init__(self) -> None:
        self.updates: list[Update] = []

    def __call__(self, batch: Data) -> None:
        self.updates.append(around(batch.n_id.numpy(), int(batch.batch_size), batch.edge_index.numpy()))


def around(nodes: Numbers, seeds: int, edges: Numbers) -> Update:
    """The seeds, the first of a batch's `nodes` (k,), then those whose messages reach them in 1, 2, 3 steps over its
    `edges` (2, m), which are places in `nodes`. What the sampler says of its hops is not asked. ValueError where a node
    reaches no seed."""
    known = np.arange(len(nodes)) < seeds
    frontier, hops = np.arange(seeds), []
    for _ in range(STEPS):
        senders = np.unique(edges[0][np.isin(edges[1], frontier)])
        frontier = senders[~known[senders]]
        known[frontier] = True
        hops.append(np.sort(nodes[frontier]))
    if not known.all():
        raise ValueError(f"{int((~known).sum())} nodes of a batch reach no seed in {STEPS} steps")
    return Update(np.sort(nodes[:seeds]), tuple(hops))


def counts_of(updates: list[Update], nodes: int) -> Numbers:
    """(nodes, 4): how often each node was a seed, and how often at hop 1, 2 and 3."""
    counts = np.zeros((nodes, STEPS + 1), dtype=np.int64)
    for update in updates:
        for hop, rows in enumerate(update.groups):
            np.add.at(counts[:, hop], rows, 1)
    return counts
