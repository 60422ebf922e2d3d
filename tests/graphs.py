"""A small made-up graph for tests: its data, a network of two message-passing steps, a neighbour sampler in Python.

And what a log says of a graph's uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.nn import SAGEConv
from torch_geometric.sampler import BaseSampler, SamplerOutput

from fgtrac.events.schema import ATTRIBUTION, STATUS

CLASSES, FEATURES = 3, 5


def make_graph(nodes: int = 60, degree: int = 3, seed: int = 0) -> Data:
    """A graph whose nodes have mostly neighbours of their class: x (n, 5), y (n,), both directions of each edge, and
    the masks train_mask (half), val_mask, test_mask (a quarter each). The last node has no edge."""
    rng = np.random.default_rng(seed)
    y = np.sort(rng.integers(0, CLASSES, nodes))
    other = rng.integers(0, nodes, nodes * degree)
    mine = np.repeat(np.arange(nodes), degree)
    keep = (mine != other) & ((y[mine] == y[other]) | (rng.random(len(mine)) < 0.2))
    keep &= (mine != nodes - 1) & (other != nodes - 1)
    pairs = np.unique(np.sort(np.stack([mine, other])[:, keep], axis=0), axis=1)
    x = rng.normal(size=(nodes, FEATURES)) + np.eye(CLASSES, FEATURES)[y]
    part = rng.permutation(np.arange(nodes) % 4)
    return Data(
        x=torch.tensor(x, dtype=torch.float32),
        edge_index=torch.tensor(np.concatenate([pairs, pairs[::-1]], axis=1)),
        y=torch.tensor(y),
        train_mask=torch.tensor(part < 2),
        val_mask=torch.tensor(part == 2),
        test_mask=torch.tensor(part == 3),
    )


class Network(nn.Module):
    """Two message-passing steps and a linear head on each node's vector; (n, 5) -> (n, 3)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = SAGEConv(FEATURES, width)
        self.second = SAGEConv(width, width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x, edge_index).relu()
        return self.head(self.second(hidden, edge_index).relu())


class FewNeighbours(BaseSampler):
    """Draws up to `fanout[h]` nodes that send messages to each node of step h, from a generator of its own.

    With `disjoint` each seed has a subgraph of its own, so that a node may be drawn several times. `tells_hops` false
    leaves `num_sampled_nodes` out, as some of PyG's own samplers do.
    """

    def __init__(
        self, data: Data, fanout: tuple[int, ...] = (2, 2), *, disjoint: bool = False, tells_hops: bool = True
    ) -> None:
        sources, targets = data.edge_index.numpy()
        order = np.argsort(targets, kind="stable")
        self.edge = order
        self.sources = sources[order]
        self.starts = np.searchsorted(targets[order], np.arange(data.num_nodes + 1))
        self.fanout = fanout
        self.disjoint = disjoint
        self.tells_hops = tells_hops
        self.rng = np.random.default_rng(0)

    @property
    def edge_permutation(self) -> None:
        """Edges are numbered as in the graph."""
        return

    def sample_from_edges(self, index: Any, **_options: Any) -> SamplerOutput:
        """Of links nothing is drawn."""
        raise NotImplementedError

    def sample_from_nodes(self, index: Any, **_options: Any) -> SamplerOutput:
        """The seeds, what was drawn for them hop by hop, and the edges between."""
        seeds = index.node.tolist()
        tree = list(range(len(seeds))) if self.disjoint else [0] * len(seeds)
        nodes = list(zip(tree, seeds, strict=True))
        place = {node: at for at, node in enumerate(nodes)}
        rows, columns, edges, hops = [], [], [], [len(nodes)]
        frontier = nodes
        for most in self.fanout:
            reached = []
            for of, target in frontier:
                about = np.arange(self.starts[target], self.starts[target + 1])
                drawn = self.rng.choice(about, min(most, len(about)), replace=False)
                for at in drawn.tolist():
                    node = (of, int(self.sources[at]))
                    if node not in place:
                        place[node] = len(place)
                        reached.append(node)
                    rows.append(place[node])
                    columns.append(place[of, target])
                    edges.append(int(self.edge[at]))
            nodes, frontier = nodes + reached, reached
            hops.append(len(reached))
        return SamplerOutput(
            node=torch.tensor([node for _, node in nodes]),
            row=torch.tensor(rows, dtype=torch.long),
            col=torch.tensor(columns, dtype=torch.long),
            edge=torch.tensor(edges, dtype=torch.long),
            batch=torch.tensor([of for of, _ in nodes]) if self.disjoint else None,
            num_sampled_nodes=hops if self.tells_hops else None,
            num_sampled_edges=None,
            metadata=(index.input_id, index.time),
        )


def node_loader(
    data: Data, nodes: Any = "train_mask", sampler: BaseSampler | None = None, **options: Any
) -> NodeLoader:
    """PyG's loader over the nodes of a mask (or its name), by default in shuffled batches of 8 with `FewNeighbours`."""
    mask = data[nodes] if isinstance(nodes, str) else nodes
    chosen = FewNeighbours(data) if sampler is None else sampler
    return NodeLoader(data, chosen, input_nodes=mask, **{"batch_size": 8, "shuffle": True} | options)


@dataclass
class NodeUse:
    """One batch as the log says it: its seeds in order, and the nodes at each hop."""

    graph: str
    status: str
    attribution: str
    seeds: list[int]
    hops: list[set[int]]


def node_uses(events: Iterable[dict[str, Any]], key_of: Callable[[bytes, int], int]) -> dict[tuple[int, ...], NodeUse]:
    """(loader, optimizer, epoch, batch, step) -> who took part, of all `use` entries, pieces put together; `key_of` is
    (block, ordinal) -> node number."""
    words = [{code: word for word, code in codes.items()} for codes in (STATUS, ATTRIBUTION)]
    found: dict[tuple[int, ...], NodeUse] = {}
    for event in events:
        nodes = [np.array([key_of(event["block"], o) for o in event[n].tolist()]) for n in ("ordinals", "hop_ordinals")]
        seeds, near = (
            np.split(keys, np.cumsum(event[n])) for keys, n in zip(nodes, ("count", "hop_count"), strict=True)
        )
        for place, (epoch, batch, step) in enumerate(
            zip(*(event[n].tolist() for n in ("epoch", "batch", "step")), strict=True)
        ):
            said = [w[int(event[n][place])] for w, n in zip(words, ("status", "attribution"), strict=True)]
            which = event["loader"], event["optimizer"], epoch, batch, step
            hops = event["hops"]
            use = found.setdefault(which, NodeUse(event["graph"], *said, [], [set() for _ in range(hops)]))
            use.seeds += seeds[place].tolist()
            use.hops += [set() for _ in range(hops - len(use.hops))]
            for hop in range(hops):
                some = near[place * hops + hop].tolist()
                assert not use.hops[hop] & set(some), "a neighbour is named once"
                use.hops[hop] |= set(some)
    return found
