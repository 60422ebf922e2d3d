"""What a Lightning module was really trained on, read off its own batches: the truth that a trace is held against."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from capture.conftest import Log, read_log
from fgtrac.frameworks.lightning import LightningTrace

QUIET = [  # what Lightning warns of, and fgtrac has no part in
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]
Seen = dict[int, list[int]]  # update -> the marks of the samples it rests on, sorted


def marked(rows: int, first: int = 0) -> TensorDataset:
    """Row i is (features, first + i): a batch tells which samples are in it."""
    features = torch.randn(rows, 4, generator=torch.Generator().manual_seed(first))
    return TensorDataset(features, torch.arange(first, first + rows))


def loader(rows: int = 12, first: int = 0, *, workers: int = 0, **options: Any) -> DataLoader[Any]:
    """A loader over marked rows, in batches of 2."""
    context = "fork" if workers else None
    options = {"batch_size": 2, "num_workers": workers, "multiprocessing_context": context} | options
    return DataLoader(marked(rows, first), **options)


class Net(lightning.LightningModule):
    """Linear, with dropout; remembers which marks it was given in which loop, and before which update."""

    def __init__(self, *, copies: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Dropout(0.2), torch.nn.Linear(5, 1))
        self.copies = copies  # as a batch that goes to another device
        self.trained: dict[int, list[int]] = defaultdict(list)
        self.batches: list[list[int]] = []
        self.evaluated: dict[str, list[int]] = defaultdict(list)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(features * 1 if self.copies else features)
        return out

    def loss(self, batch: Any) -> torch.Tensor:
        features, marks = batch
        self.trained[self.global_step + 1] += marks.tolist()
        self.batches.append(sorted(marks.tolist()))
        return self(features).square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.loss(batch)

    def _evaluate(self, loop: str, batch: Any) -> torch.Tensor:
        self.evaluated[loop] += batch[1].tolist()
        loss: torch.Tensor = self(batch[0]).square().mean()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loop = "sanity" if self.trainer.sanity_checking else "validate"
        self.log("val_loss", self._evaluate(loop, batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.evaluated["predict"] += batch[1].tolist()
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)

    def truth(self) -> Seen:
        return {step: sorted(marks) for step, marks in sorted(self.trained.items())}


def trainer(callback: Any = None, **options: Any) -> lightning.Trainer:
    """A quiet Trainer on the processor."""
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    callbacks = [] if callback is None else [callback]
    usual = {"max_epochs": 2, "accelerator": "cpu", "num_sanity_val_steps": 0} | quiet
    return lightning.Trainer(**usual | {"callbacks": callbacks} | options)


def trace_at(folder: Path, **options: Any) -> LightningTrace:
    """A callback that records into folder/run.trace."""
    return LightningTrace(folder / "run", key=folder / "key.pem", **options)


def read(folder: Path) -> Log:
    """The log of folder/run.trace."""
    return read_log(folder / "run.trace")


def applied(log: Log, optimizer: int | None = 1) -> Seen:
    """What the log says of updates; row numbers are marks where there is one data set."""
    out: dict[int, list[int]] = defaultdict(list)
    for use in log.uses():
        if use.status == "applied" and optimizer in (None, use.optimizer):
            out[use.step].append(use.key)
    return {step: sorted(keys) for step, keys in sorted(out.items())}


def sureness(log: Log) -> set[str]:
    return {use.attribution for use in log.uses() if use.status == "applied"}
