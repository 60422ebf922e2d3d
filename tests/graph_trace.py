"""A small graph trained and scored under trace, for the tests of contributions on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch_geometric.data import Data

import fgtrac
from fgtrac.api.run import Run, start_run
from fgtrac.api.trace import Trace
from graphs import Network, make_graph

ICONS = [f"icon-{node}" for node in range(60)]  # what the nodes are called


def forward(model: nn.Module, nodes: torch.Tensor, graph: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """The head is applied to all nodes; those asked for are taken out behind it."""
    return model(graph.x, graph.edge_index)[nodes], graph.y[nodes]


@dataclass
class GraphTrace:
    """Where it lies, the graph, and the model as it was trained."""

    folder: Path

    @cached_property
    def graph(self) -> Data:
        return make_graph()

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Network()

    def forward(self, model: nn.Module, nodes: torch.Tensor, graph: Data | None = None) -> tuple[Any, Any]:
        return forward(model, nodes, self.graph if graph is None else graph)

    @property
    def scored(self) -> dict[str, Any]:
        """What is scored, as `score_with` takes it."""
        rows = {"train": "train_mask", "validation": "val_mask", "test": "test_mask"}
        data = {role: fgtrac.GraphNodes(self.graph, mask) for role, mask in rows.items()}
        return {"loss": nn.CrossEntropyLoss(), "forward": self.forward, "batch_size": 64, **data}

    def register(self, run: Any) -> None:
        for mask, role in (("train_mask", "train"), ("val_mask", "validation"), ("test_mask", "test")):
            run.register(self.graph, mask, role=role, **({"key": ICONS} if role == "train" else {}))

    def record(self, **options: Any) -> nn.Module:
        """Train on whole-graph passes toward batches of seeds; the model as it is then."""
        model = self.model()
        with start_run(self.folder / "run", key=self.folder / "key.pem", keep="every:2") as run:
            self.register(run)
            run.score_with(**self.scored | options)
            self.fit(run, model)
        return model

    def fit(self, run: Run, model: nn.Module) -> None:
        torch.manual_seed(7)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        loader = DataLoader(fgtrac.GraphNodes(self.graph, "train_mask"), batch_size=10, shuffle=True)
        for epoch in range(4):
            for nodes in run.watch(loader, role="train"):
                optimizer.zero_grad()
                outputs, targets = self.forward(model, nodes)
                cross_entropy(outputs, targets).backward()
                optimizer.step()
            run.checkpoint(model, optimizer, val_loss=1.0 / (epoch + 1), epoch=epoch)

    @property
    def path(self) -> Path:
        return self.folder / "run.trace"

    @property
    def trace(self) -> Trace:
        return fgtrac.open(self.path)
