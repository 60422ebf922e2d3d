"""Training on the icon graph, the way anybody would, with or without a run around it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader

from fgtrac.demo.graph.network import MODALITIES, STEPS, IconNetwork
from fgtrac.demo.graph.sampler import FewNeighbours
from fgtrac.demo.training import random_state, seed_everything

EPOCHS, PATIENCE = 24, 2
FALL = 0.01  # of the validation loss: an epoch of less is no better one. fgtrac keeps checkpoints by the same rule
BATCH_SIZE = 128
FAN_OUT = (2, 1, 1)


@dataclass(frozen=True, slots=True)
class Trained:
    """What one training came to. `model` is the one of the best epoch on the validation nodes, after `best_step`
    updates; the accuracies and the loss are its own."""

    model: IconNetwork
    test_accuracy: float
    validation_accuracy: float
    validation_loss: float
    best_step: int
    epochs: int
    steps: int
    loop_s: float
    random_state: str  # SHA-256 over the global generators of torch, numpy and Python, as the training left them


def train(
    graph: Data,
    *,
    seed: int,
    modalities: tuple[str, ...] = MODALITIES,
    edges: bool = True,
    epochs: int = EPOCHS,
    watch: Callable[[NodeLoader], object] = lambda _: None,
    after_epoch: Callable[[nn.Module, torch.optim.Optimizer, float], object] = lambda *_: None,
    progress: Callable[[], object] = lambda: None,
) -> Trained:
    """Train from `seed`, and stop when the validation loss has not fallen by a hundredth for two epochs.

    `watch(loader)` is called before the first epoch; `after_epoch(model, optimizer, validation loss)` is where a
    checkpoint belongs. Without `edges`, nobody sends messages.
    """
    seed_everything(seed)
    seen = graph if edges else without_edges(graph)
    loader = make_loader(seen, seed)
    watch(loader)
    model = IconNetwork(graph.words.shape[1], int(graph.y.max()) + 1, modalities)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-4)
    best, waited, steps, loop_s = _Best(float("inf"), 0.0, 0, {}), 0, 0, 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        model.train()
        for batch in loader:
            optimizer.zero_grad()
            mine = slice(batch.batch_size)
            functional.cross_entropy(model(batch)[mine], batch.y[mine]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1
            progress()
        loop_s += time.perf_counter() - start
        loss, accuracy = evaluate(model, seen, seen.val_mask)
        after_epoch(model, optimizer, loss)
        waited += 1
        if not best.state or loss <= best.loss - FALL * best.loss:
            best, waited = _Best(loss, accuracy, steps, copy.deepcopy(model.state_dict())), 0
        elif waited == PATIENCE:
            break
    generators = random_state()
    model.load_state_dict(best.state)
    test = evaluate(model, seen, seen.test_mask)[1]
    return Trained(model, test, best.accuracy, best.loss, best.step, steps // len(loader), steps, loop_s, generators)


@dataclass(frozen=True, slots=True)
class _Best:
    """The best epoch so far, and the state of its model."""

    loss: float
    accuracy: float
    step: int
    state: dict[str, torch.Tensor]


def make_loader(graph: Data, seed: int) -> NodeLoader:
    """Shuffled seeds, the training nodes, with neighbours drawn over three hops."""
    fan_out = FAN_OUT if graph.num_edges else ()
    assert len(FAN_OUT) == STEPS
    sampler = FewNeighbours(graph, fan_out, seed)
    return NodeLoader(graph, sampler, input_nodes=graph.train_mask, batch_size=BATCH_SIZE, shuffle=True)


def without_edges(graph: Data) -> Data:
    """The same nodes, on their own."""
    alone = copy.copy(graph)
    alone.edge_index = graph.edge_index[:, :0]
    return alone


@torch.no_grad()
def evaluate(model: nn.Module, graph: Data, mask: torch.Tensor) -> tuple[float, float]:
    """Mean loss and accuracy over the nodes of a mask, in eval mode, with messages over the whole graph."""
    logits, losses = predict(model, graph)
    right = logits.argmax(1) == graph.y
    return float(losses[mask].mean()), float(right[mask].float().mean())


@torch.no_grad()
def predict(model: nn.Module, graph: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, classes) and losses (n,) of every node, with messages over the whole graph."""
    model.eval()
    logits = model(graph)
    return logits, functional.cross_entropy(logits, graph.y, reduction="none")
