"""What a Trainer was really trained on, read off its own batches: the truth that a trace is held against."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from capture.conftest import Log
from fgtrac.frameworks.trainer import TrainerTrace
from rank_processes import Plan

Seen = dict[int, list[int]]  # update -> the marks of the samples it rests on, sorted


class Marked(Dataset[Any]):
    """Row i is {"inputs": (4,), "labels": (), "marks": first + i}, as a Trainer's collator lays them together."""

    def __init__(self, rows: int, first: int = 0) -> None:
        self.features = torch.randn(rows, 4, generator=torch.Generator().manual_seed(first))
        self.first = first

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"inputs": self.features[row], "labels": torch.tensor(row % 3), "marks": torch.tensor(self.first + row)}


class Net(nn.Module):
    """Linear with dropout; with `copies` it is given what lies elsewhere than what was delivered."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.Linear(6, 3))

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor, marks: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.body(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Telling(Trainer):
    """Remembers which marks each update rests on; `copies` gives the model copies, as another device would."""

    copies = False
    ends_at = -1  # the step in which the training is interrupted

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trained: dict[int, list[int]] = defaultdict(list)
        self.batches: list[list[int]] = []
        self.predicted: list[int] = []

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == self.ends_at:
            raise KeyboardInterrupt
        assert set(inputs) == {"inputs", "labels", "marks"}  # what the loop gets is what the collator made
        marks = inputs["marks"].tolist()
        self.trained[self.state.global_step + 1] += marks
        self.batches.append(sorted(marks))
        if self.copies:
            inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        return super().training_step(model, inputs, *args, **kwargs)

    def prediction_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.predicted += inputs["marks"].tolist()
        return super().prediction_step(model, inputs, *args, **kwargs)

    def truth(self) -> Seen:
        return {step: sorted(marks) for step, marks in sorted(self.trained.items())}


def make(
    folder: Path, data: Any, *callbacks: Any, evaluated: Any = None, kind: type[Trainer] = Telling, **options: Any
) -> Any:
    """A quiet Trainer on the processor, in batches of 4, saving into folder/out."""
    usual = {
        "per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 0.05, "use_cpu": True,
        "report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "seed": 5,
        "remove_unused_columns": False, "dataloader_pin_memory": False,
    }  # fmt: skip
    args = TrainingArguments(output_dir=str(folder / "out"), **usual | options)
    return kind(Net(), args, train_dataset=data, eval_dataset=evaluated, callbacks=list(callbacks))


def trace_at(folder: Path, **options: Any) -> TrainerTrace:
    """A callback that records into folder/run.trace."""
    return TrainerTrace(folder / "run", key=folder / "key.pem", **options)


def applied(log: Log) -> Seen:
    """What the log says of updates; row numbers are marks where there is one data set."""
    out: dict[int, list[int]] = defaultdict(list)
    for use in log.uses():
        if use.status == "applied":
            out[use.step].append(use.key)
    return {step: sorted(keys) for step, keys in sorted(out.items())}


def sureness(log: Log) -> set[str]:
    return {use.attribution for use in log.uses() if use.status == "applied"}


def fit(rank: int, count: int, folder: Path, plan: Plan) -> tuple[list[list[int]], list[float]]:
    """A rank's training, for `rank_processes.together`: the rows of each batch, and the weights."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    callbacks = [TrainerTrace(folder / "run")] if plan.record else []
    trainer = make(folder, Marked(plan.rows), *callbacks, ddp_find_unused_parameters=False, **plan.options)
    trainer.train()
    return trainer.batches, [p.detach().sum().item() for p in trainer.model.parameters()]
