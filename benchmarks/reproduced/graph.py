"""The multimodal half: the demo's icon graph and network, with and without a run around the training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch_geometric.data import Data

from fgtrac.demo.graph import training
from fgtrac.demo.graph.network import MODALITIES, STEPS, IconNetwork
from fgtrac.demo.training import Trained
from reproduced.measure import PREPARED_BY, Clock, Costs, Ended, Recording

if TYPE_CHECKING:
    from fgtrac.demo.truth import Update

EPOCHS = training.EPOCHS
MASKS = {"train": "train_mask", "validation": "val_mask", "test": "test_mask"}


def make_data(shared: Path, icons: Path | None) -> dict[str, Any]:
    """Prepare the graph once, and leave in `shared` what all trainings without fgtrac read. `icons` is the folder that
    npm put them in; without it, npm fetches them into the user's cache."""
    from fgtrac.demo.graph.fetch import cache_folder, fetch_icons
    from fgtrac.demo.graph.icons import VERSION
    from fgtrac.demo.graph.prepare import prepare

    found = fetch_icons(cache_folder(os.environ), os.environ) if icons is None else icons
    (shared / "icons").unlink(missing_ok=True)
    (shared / "icons").symlink_to(found.resolve())
    source = read_icons(shared)
    graph = prepare(source, PREPARED_BY)
    parts = {name: graph[name].numpy() for name in ("image", "words", "edge_index", "y", *MASKS.values())}
    np.savez(shared / "graph.npz", names=np.array(source.names), **parts)
    classes = len(source.categories)
    return {
        "origin": f"The Tabler icons {VERSION}",
        "nodes": graph.num_nodes,
        "edges": graph.num_edges,
        "classes": classes,
        **{role: int(graph[mask].sum()) for role, mask in MASKS.items()},
        "weights": sum(p.numel() for p in IconNetwork(graph.words.shape[1], classes).parameters()),
        "modalities": list(MODALITIES),
        "hops": STEPS,
        "batch": training.BATCH_SIZE,
    }


def read_icons(shared: Path) -> Any:
    """The icons as they are published."""
    from fgtrac.demo.graph.icons import load_icons

    return load_icons(shared / "icons")


def read_graph(shared: Path) -> Data:
    """The prepared graph."""
    with np.load(shared / "graph.npz") as parts:
        tensors = {name: torch.from_numpy(parts[name]) for name in parts.files if name != "names"}
    return Data(num_nodes=len(tensors["y"]), **tensors)


def warm_up() -> None:
    """One update: what torch loads and sets up at the first one belongs to no arm."""
    tiny = Data(
        image=torch.zeros(8, 24, 24), words=torch.zeros(8, 4), y=torch.arange(8) % 2,
        edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=8,
    )  # fmt: skip
    for mask in MASKS.values():
        tiny[mask] = torch.ones(8, dtype=torch.bool)
    training.train(tiny, seed=0, epochs=1)


def train_plain(shared: Path, seed: int, epochs: int, clock: Clock) -> Trained:
    """The training as anybody would write it, and nothing of fgtrac."""
    graph = read_graph(shared)
    with clock.running():
        trained = training.train(graph, seed=seed, epochs=epochs)
    training.predict(trained.model, graph)
    return as_trained(trained)


def train_traced(shared: Path, recording: Recording, seed: int, epochs: int, clock: Clock) -> Ended:
    """The same under trace, from the preparation to the predictions, with each node's modality weights at each kept
    checkpoint."""
    from fgtrac.demo.graph.prepare import prepare

    icons = read_icons(shared)
    with recording.run({"epochs": epochs, "batch": training.BATCH_SIZE, "seed": seed}) as run:
        graph = prepare(icons, PREPARED_BY, run)
        costs = Costs(run, recording.own)
        run.attention_with(weights=costs.passed(lambda m: m.modality_weights(graph)), data=graph, modalities=MODALITIES)
        if recording.is_scored:
            score(run, graph)
        with clock.running(), costs.counted():
            trained = training.train(
                graph, seed=seed, epochs=epochs, watch=lambda loader: run.watch(loader, role="train"),
                after_epoch=lambda model, optimizer, loss: costs.checkpoint(model, optimizer, val_loss=loss),
            )  # fmt: skip
        logits, losses = training.predict(trained.model, graph)
        run.predictions(graph, logits, losses=losses)
    return Ended(as_trained(trained), costs)


def score(run: Any, graph: Data) -> None:
    """Score the seed nodes in the prediction layer, with messages over the whole graph."""
    from fgtrac.capture.graph import GraphNodes

    def forward(model: nn.Module, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return model(graph)[nodes], graph.y[nodes]

    samples = {role: GraphNodes(graph, mask) for role, mask in MASKS.items()}
    run.score_with(loss=nn.CrossEntropyLoss(), forward=forward, batch_size=graph.num_nodes, **samples)


def as_trained(trained: training.Trained) -> Trained:
    """In the words of both halves."""
    return Trained(trained.model, trained.test_accuracy, trained.loop_s, trained.steps, trained.random_state)


class Witness:
    """Which nodes each training forward pass received, and over how many messages each reaches a seed: counted along
    the edges that came with them. That the features are those of these nodes is looked at in every pass."""

    dataset, network = "icons", IconNetwork

    def __init__(self, shared: Path) -> None:
        self._graph = read_graph(shared)
        with np.load(shared / "graph.npz") as parts:
            self._rows = {str(name): row for row, name in enumerate(parts["names"])}
        self._batches: list[tuple[NDArray[np.int64], int, NDArray[np.int64]]] = []

    def row_of(self, key: Any) -> int:
        """The node that a key names."""
        return self._rows[key]

    def __call__(self, batch: Data) -> None:
        nodes = batch.n_id
        for name in MODALITIES:
            if not torch.equal(batch[name], self._graph[name][nodes]):
                raise SystemExit(f"the network received other {name} than those of the nodes that the batch names")
        self._batches.append((nodes.numpy().copy(), int(batch.batch_size), batch.edge_index.numpy().copy()))

    def updates(self) -> list[Update]:
        """Seeds and neighbours of each batch."""
        from fgtrac.demo.graph.witness import around

        return [around(*batch) for batch in self._batches]
