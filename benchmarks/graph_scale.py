"""What capture costs on a made-up graph of 100,000 nodes and 500,000 edges, with three message-passing steps.

whole_*                full-batch passes: every node stands in the log in every pass
sampled_*              mini-batches of 256 seeds with up to 10, 5 and 5 neighbours a node
..._nodes_per_step     seeds and neighbours of a step, as the log has them
..._own_ms_per_step    hooks, loader patches, flushes and the thread that writes, on one thread; ..._own_share is of the
                       loop's time
..._bytes_per_node     of the use entries, with what the log adds to each, for each node that they name
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.nn import SAGEConv

from fgtrac.api.run import start_run
from fgtrac.capture.own_time import own_time
from fgtrac.demo.figures import count_uses
from fgtrac.demo.graph.sampler import FewNeighbours
from fgtrac.demo.training import one_thread
from fgtrac.store.trace_dir import TraceDir
from harness import report

NODES, EDGES, WIDTH, CLASSES = 100_000, 500_000, 64, 10
FAN_OUT = (10, 5, 5)
STEPS = {"whole": 8, "sampled": 60}


class Network(nn.Module):
    """Three message-passing steps and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(SAGEConv(WIDTH, WIDTH) for _ in FAN_OUT)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """(n, 64) -> (n, 10)."""
        for step in self.steps:
            x = step(x, edge_index).relu()
        return self.head(x)


def make_graph() -> Data:
    """Random features, classes and edges; half of the nodes are for training."""
    rng = np.random.default_rng(0)
    return Data(
        x=torch.tensor(rng.normal(size=(NODES, WIDTH)), dtype=torch.float32),
        edge_index=torch.tensor(rng.integers(0, NODES, (2, EDGES))),
        y=torch.tensor(rng.integers(0, CLASSES, NODES)),
        train_mask=torch.tensor(rng.random(NODES) < 0.5),
    )


def measure(kind: str, graph: Data) -> dict[str, float]:
    """One training of a few steps."""
    torch.manual_seed(0)
    model = Network()
    optimizer = torch.optim.Adam(model.parameters())
    with tempfile.TemporaryDirectory() as name, one_thread(), own_time() as own:
        with start_run(Path(name) / "run", key=Path(name) / "key.pem") as run:
            if kind == "whole":
                passes: Any = run.full_batch(graph, "train_mask", hops=len(FAN_OUT), role="train")
            else:
                sampler = FewNeighbours(graph, FAN_OUT, 0)
                loader = NodeLoader(graph, sampler, input_nodes=graph.train_mask, batch_size=256, shuffle=True)
                passes = run.watch(loader, role="train")
            own.seconds, background_s, start = 0.0, run._recorder.background_cpu_s, time.perf_counter()
            for _, batch in zip(range(STEPS[kind]), forever(passes), strict=False):
                seeds = batch.train_mask if kind == "whole" else slice(batch.batch_size)
                optimizer.zero_grad()
                cross_entropy(model(batch.x, batch.edge_index)[seeds], batch.y[seeds]).backward()
                optimizer.step()
            run._recorder.flush()
            loop_s = time.perf_counter() - start
            own_s = own.seconds + run._recorder.background_cpu_s - background_s
        seeds, neighbours, size = count_uses(TraceDir.open(run.path))
    nodes = seeds + neighbours
    return {
        f"{kind}_nodes_per_step": nodes / STEPS[kind],
        f"{kind}_own_ms_per_step": own_s / STEPS[kind] * 1e3,
        f"{kind}_own_share": own_s / loop_s,
        f"{kind}_bytes_per_node": size / nodes,
    }


def forever(passes: Any) -> Iterator[Any]:
    """Pass after pass."""
    while True:
        yield from passes


def main() -> None:
    """Both kinds on one graph."""
    graph = make_graph()
    report("graph_scale", measure("whole", graph) | measure("sampled", graph))


if __name__ == "__main__":
    main()
