"""A loop that writes down what it trained on, over data whose items say who they are; what the log says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from fgtrac.api.run import Run

Read = Callable[[Path], Any]


class Rows(Dataset[Any]):
    """Item i is (features, i): a batch tells which samples are in it. Item `bad` cannot be read."""

    def __init__(self, rows: int = 20, bad: int | None = None) -> None:
        self.features = torch.randn(rows, 4, generator=torch.Generator().manual_seed(5))
        self.bad = bad

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == self.bad:
            raise OSError(f"row {index} is unreadable")
        return self.features[index], index


class Trainer:
    """A plain loop that writes down what it trained on."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.truth: list[list[int]] = []  # of each update, sorted

    def step(self, *batches: Any) -> None:
        self.optimizer.zero_grad()
        rows: list[int] = []
        loss = torch.zeros(())
        for batch in batches:
            features, who = (batch["features"], batch["who"]) if isinstance(batch, dict) else batch
            loss = loss + self.model(features.reshape(-1, 4)).square().sum()
            rows += torch.as_tensor(who).reshape(-1).tolist()
        loss.backward()
        self.optimizer.step()
        self.truth.append(sorted(rows))

    def over(self, batches: Iterable[Any]) -> None:
        for batch in batches:
            self.step(batch)


def updates(log: Any, *sure: str, datasets: int = 1) -> list[list[int]]:
    """The samples of each update in order, as the log says it, of so many data sets; their attributions are these."""
    found: dict[int, list[int]] = {}
    uses = [use for use in log.uses() if use.status == "applied"]
    for use in uses:
        found.setdefault(use.step, []).append(use.key)
    assert {use.attribution for use in uses} == set(sure)
    assert len({use.dataset for use in uses}) <= datasets
    return [sorted(found[step]) for step in sorted(found)]


def check(run: Run, log: Read, trainer: Trainer, *sure: str, datasets: int = 1) -> Any:
    run.close()
    said = log(run.path)
    assert updates(said, *(sure or ("exact",)), datasets=datasets) == trainer.truth
    return said
