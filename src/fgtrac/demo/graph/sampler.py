"""A neighbour sampler in numpy, for PyG's `NodeLoader`: its own needs compiled extensions that no index has."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data
from torch_geometric.sampler import BaseSampler, SamplerOutput

Numbers = NDArray[np.int64]


class FewNeighbours(BaseSampler):  # type: ignore[misc]
    """Draws, without replacement, up to `fan_out[h]` of the nodes that send messages to each node of hop h.

    A node stands in a batch once, at the hop that reached it first (GraphSAGE's neighbourhoods, arXiv:1706.02216). The
    draws come from a generator of its own, from `seed` on.
    """

    def __init__(self, data: Data, fan_out: tuple[int, ...], seed: int) -> None:
        edges = data.edge_index.numpy()
        order = np.argsort(edges[1], kind="stable")
        self._sources: Numbers = edges[0][order]
        self._starts: Numbers = np.searchsorted(edges[1][order], np.arange(data.num_nodes + 1))
        self._fan_out = fan_out
        self._generator = np.random.default_rng(seed)
        self._place: Numbers = np.full(data.num_nodes, -1)  # of a node in the batch that is being drawn

    def sample_from_nodes(self, index: Any, **_options: Any) -> SamplerOutput:
        """The seeds of `index`, hop by hop what was drawn for them, and the edges that were drawn."""
        frontier: Numbers = index.node.numpy()
        hops, rows, columns, drawn = [frontier], [], [], []
        self._place[frontier] = np.arange(len(frontier))
        size = len(frontier)
        for most in self._fan_out:
            sources, targets = self._draw(frontier, most)
            reached = np.unique(sources[self._place[sources] < 0])
            self._place[reached] = size + np.arange(len(reached))
            size += len(reached)
            rows.append(self._place[sources])
            columns.append(self._place[targets])
            drawn.append(len(sources))
            hops.append(reached)
            frontier = reached
        nodes = np.concatenate(hops)
        self._place[nodes] = -1
        return SamplerOutput(
            node=torch.from_numpy(nodes),
            row=torch.from_numpy(np.concatenate([*rows, np.empty(0, np.int64)])),
            col=torch.from_numpy(np.concatenate([*columns, np.empty(0, np.int64)])),
            edge=None,
            num_sampled_nodes=[len(hop) for hop in hops],
            num_sampled_edges=drawn,
            metadata=(index.input_id, index.time),
        )

    def sample_from_edges(self, index: Any, **_options: Any) -> SamplerOutput:
        """There are no links to predict here."""
        raise NotImplementedError("this sampler begins at nodes")

    def _draw(self, targets: Numbers, most: int) -> tuple[Numbers, Numbers]:
        """Up to `most` edges into each target: their sources, and the target of each."""
        first = self._starts[targets]
        counts = self._starts[targets + 1] - first
        owner = np.repeat(np.arange(len(targets)), counts)
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        edges = np.repeat(first, counts) + rank
        shuffled = np.lexsort((self._generator.random(len(owner)), owner))  # within each target
        chosen = np.sort(shuffled[rank < most])
        return self._sources[edges[chosen]], targets[owner[chosen]]
