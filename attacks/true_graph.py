"""What the lies about graphs share: a little graph in a ring, whose nodes have names, and a recorded training on it.

photo-0 to photo-15   train; 16 to 19 are for validation, 20 to 23 for the test. Each is joined to the next one, so that
                      the features of photo-20 reach seeds on the ring, and its label should reach nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.nn import SAGEConv
from torch_geometric.sampler import BaseSampler, SamplerOutput

from fgtrac.api.run import Run, start_run

NODES, HOPS, TRAIN, TEST = 24, 2, range(16), range(20, 24)
NAMES = [f"photo-{number}" for number in range(NODES)]


class RingNeighbours(BaseSampler):
    """Draws every node whose messages reach a seed within `HOPS` steps."""

    def __init__(self, edges: torch.Tensor) -> None:
        self._edges = edges

    edge_permutation = None

    def sample_from_edges(self, index: Any, **_options: Any) -> SamplerOutput:
        """No links are drawn."""
        raise NotImplementedError

    def sample_from_nodes(self, index: Any, **_options: Any) -> SamplerOutput:
        """Seeds first, then what each hop adds; the edges among all of these."""
        nodes, hops = index.node.tolist(), [len(index.node)]
        for _hop in range(HOPS):
            found = [s for s, t in self._edges.T.tolist() if t in nodes and s not in nodes]
            drawn = sorted(set(found))
            nodes += drawn
            hops.append(len(drawn))
        here = torch.isin(self._edges, torch.tensor(nodes)).all(dim=0).nonzero().flatten()
        row, column = ([nodes.index(n) for n in side.tolist()] for side in self._edges[:, here])
        return SamplerOutput(
            node=torch.tensor(nodes), row=torch.tensor(row), col=torch.tensor(column), edge=here, batch=None,
            num_sampled_nodes=hops, num_sampled_edges=None, metadata=(index.input_id, index.time),
        )  # fmt: skip


class Network(torch.nn.Module):
    """Two message-passing steps, (n, 4) -> (n, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = SAGEConv(4, 8), SAGEConv(8, 2)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Each node's classes."""
        return self.second(self.first(x, edges).relu(), edges)


def make_ring() -> Data:
    """The graph, with both directions of each edge."""
    torch.manual_seed(0)
    here = torch.arange(NODES)
    edges = torch.cat([torch.stack([here, here.roll(1)]), torch.stack([here.roll(1), here])], dim=1)
    return Data(x=torch.randn(NODES, 4), y=torch.randint(0, 2, (NODES,)), edge_index=edges)


def train_on_ring(room: Path, seeds: Sequence[int] = TRAIN) -> Run:
    """Train for an epoch on these seeds, in batches of 4, and record at room/run.trace, signed with room/key.pem."""
    graph, model = make_ring(), Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with start_run(room / "run", key=room / "key.pem") as run:
        run.register(graph, nodes=range(16, 20), role="validation", key=NAMES, name="ring")
        run.register(graph, nodes=TEST, role="test")
        sampler = RingNeighbours(graph.edge_index)
        loader = NodeLoader(graph, sampler, input_nodes=torch.tensor(seeds), batch_size=4, shuffle=True)
        for batch in run.watch(loader, role="train"):
            optimizer.zero_grad()
            mine = slice(batch.batch_size)
            outputs = model(batch.x, batch.edge_index)[mine]
            torch.nn.functional.cross_entropy(outputs, batch.y[mine]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return run
