"""The demo's model and loop: a LeNet-like network, trained the way anybody would, with or without a run around it."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

Dataset = Any


class LeNet(nn.Module):
    """LeNet-5's shape (LeCun et al., 1998) with batch normalisation and dropout, for 28 x 28 grey images."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Dropout(0.2), nn.Linear(120, 84), nn.ReLU()
        )
        self.output = nn.Linear(84, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, height, width) bytes to (n, 10) logits."""
        out: torch.Tensor = self.output(self.head(self.features(images[:, None].float() / 255)))
        return out


@dataclass(frozen=True, slots=True)
class Trained:
    """What one training run came to."""

    model: nn.Module
    accuracy: float
    loop_s: float
    steps: int
    random_state: str  # SHA-256 over the global generators of torch, numpy and Python, as the training left them


def make_loaders(train: Dataset, validation: Dataset, batch_size: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """A shuffling training loader and a plain validation loader."""
    return DataLoader(train, batch_size=batch_size, shuffle=True), DataLoader(validation, batch_size=512)


def train(
    loaders: tuple[DataLoader[Any], DataLoader[Any]],
    test: Dataset,
    *,
    epochs: int,
    seed: int,
    after_epoch: Callable[[nn.Module, torch.optim.Optimizer, float], object] = lambda *_: None,
    progress: Callable[[], object] = lambda: None,
) -> Trained:
    """Train from `seed`; `after_epoch(model, optimizer, validation loss)` is where a checkpoint belongs."""
    seed_everything(seed)
    model = LeNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    steps, loop_s = 0, 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        model.train()
        for images, labels in loaders[0]:
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1
            progress()
        loop_s += time.perf_counter() - start
        after_epoch(model, optimizer, evaluate(model, loaders[1])[0])
    _, accuracy = evaluate(model, DataLoader(test, batch_size=512))
    return Trained(model, accuracy, loop_s, steps, random_state())


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: on a busy machine two of them mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def random_state() -> str:
    """SHA-256 over the states of the three global generators."""
    digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    digest.update(repr(random.getstate()).encode())
    kind, keys, *rest = np.random.get_state()
    digest.update(repr((kind, rest)).encode() + np.asarray(keys).tobytes())
    return digest.hexdigest()


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader[Any]) -> tuple[float, float]:
    """Mean loss and accuracy over a loader, in eval mode."""
    model.eval()
    loss, right, seen = 0.0, 0, 0
    for images, labels in loader:
        logits = model(images)
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
    return loss / seen, right / seen


@torch.no_grad()
def predict(model: nn.Module, data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, 10) and losses (n,) for every item, in order."""
    model.eval()
    logits, losses = [], []
    for images, labels in DataLoader(data, batch_size=512):
        logits.append(model(images))
        losses.append(functional.cross_entropy(logits[-1], labels, reduction="none"))
    return torch.cat(logits), torch.cat(losses)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models' states are equal bit for bit, buffers included."""
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the names and bytes of a model's state, buffers included."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
