"""A loop that knows the truth: each sample's first value is its number, and it notes whose gradients it applies."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.run import Run

Updates = dict[tuple[int, int], list[int]]  # (optimizer, step) -> the samples that it rests on, in order
ROWS, OTHERS = "rows", "others"  # data sets with the same keys: those of the second are told by the thousand
THOUSANDS = {OTHERS: 1000}


class Loop:
    """A network, batches of two, and the truth about the updates made of them."""

    def __init__(self, run: Run, batches: int = 4) -> None:
        torch.manual_seed(0)
        self.run = run
        self.data, self.others = _numbered(2 * batches), _numbered(2 * batches)
        run.register(self.data, name=ROWS)
        self.model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
        self.truth: Updates = {}
        self._steps: dict[int, int] = {}
        self._waiting: list[int] = []

    def batches(self, workers: int = 0, size: int = 2) -> DataLoader[Any]:
        """Of the training data, watched."""
        loader = DataLoader(self.data, batch_size=size, collate_fn=_stack, num_workers=workers)
        return self.run.watch(loader, role="train")

    def others_batches(self) -> DataLoader[Any]:
        """Of another data set, watched."""
        self.run.register(self.others, name=OTHERS)
        return self.run.watch(DataLoader(self.others, batch_size=2, collate_fn=_stack), role="train")

    def sgd(self, model: nn.Module | None = None, **options: Any) -> torch.optim.SGD:
        """An optimizer of the network, or of another."""
        return torch.optim.SGD((model or self.model).parameters(), lr=0.1, **options)

    def saw(self, features: torch.Tensor, dataset: str = ROWS) -> torch.Tensor:
        """These samples' gradients will be part of the next update."""
        self._waiting += [THOUSANDS.get(dataset, 0) + int(number) for number in features[:, 0].tolist()]
        return features

    def forgot(self) -> None:
        """The gradients were thrown away."""
        self._waiting = []

    def updated(self, optimizer: int = 1, *, keeps: bool = False) -> None:
        """An update was made; `keeps` where the next one is made of the same samples."""
        self._steps[optimizer] = self._steps.get(optimizer, 0) + 1
        self.truth[optimizer, self._steps[optimizer]] = sorted(self._waiting)
        if not keeps:
            self._waiting = []


def _numbered(rows: int) -> TensorDataset:
    return TensorDataset(torch.cat([torch.arange(float(rows))[:, None], torch.randn(rows, 3)], 1))


def _stack(rows: list[tuple[torch.Tensor]]) -> torch.Tensor:
    return torch.stack([row[0] for row in rows])


def told(log: Any, status: str = "applied") -> Updates:
    """The same, as the log says it."""
    found: Updates = {}
    for use in log.uses():
        if use.status == status:
            found.setdefault((use.optimizer, use.step), []).append(THOUSANDS.get(use.dataset, 0) + use.key)
    return {at: sorted(samples) for at, samples in sorted(found.items())}


def check(loop: Loop, log: Any, *sure: str, discarded: tuple[int, ...] = ()) -> None:
    """The log says what the loop knows, this surely, and nothing is in doubt."""
    loop.run.close()
    said = log(loop.run.path)
    assert told(said) == loop.truth
    assert {use.attribution for use in said.uses() if use.status == "applied"} == set(sure)
    assert sorted(use.key for use in said.uses() if use.status == "discarded") == list(discarded)
    assert said.kind("gap") == []
