"""The plain CNN in a Hugging Face Trainer: capture's own time over the loop's, for capture_overhead's trainer_share."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from fgtrac.api.run import start_run
from fgtrac.capture.own_time import OwnTime, own_time
from fgtrac.demo.training import LeNet
from fgtrac.frameworks.trainer import TrainerTrace
from reproduced.measure import Costs


class Images(Dataset[Any]):
    """Images and labels as a Trainer's collator wants them."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"images": self.images[row], "labels": self.labels[row]}


class Net(LeNet):
    """Gives the loss, as a Trainer wants it."""

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        logits = super().forward(images)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class Clock(TrainerCallback):
    """Times the loop, from its first step on; makes a checkpoint every some steps; ends it after `seconds`."""

    def __init__(self, costs: Costs, steps_a_checkpoint: int, seconds: float) -> None:
        self.costs, self.steps_a_checkpoint, self.seconds = costs, steps_a_checkpoint, seconds
        self.begun_s = self.whole_s = 0.0
        self.steps = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begun_s = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **now: Any) -> None:
        self.steps = state.global_step
        if self.steps % self.steps_a_checkpoint == 0:
            self.costs.checkpoint(now["model"], now["optimizer"])
            control.should_training_stop = time.perf_counter() - self.begun_s >= self.seconds

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.whole_s = time.perf_counter() - self.begun_s


@contextmanager
def adapter_timed(own: OwnTime) -> Iterator[None]:
    """What the callback itself does in a step is fgtrac's, what it calls is the Trainer's."""

    def timed(around: Callable[..., Any]) -> Callable[..., Any]:
        return own.own(lambda self, original, *args, **kwargs: around(self, own.foreign(original), *args, **kwargs))

    before = {name: getattr(TrainerTrace, name) for name in ("_training", "_fetching", "on_log")}
    TrainerTrace._training = timed(before["_training"])  # type: ignore[method-assign]
    TrainerTrace._fetching = timed(before["_fetching"])  # type: ignore[method-assign]
    TrainerTrace.on_log = own.own(before["on_log"])  # type: ignore[method-assign]
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(TrainerTrace, name, function)


def measure(images: torch.Tensor, labels: torch.Tensor, batch: int, steps_a_checkpoint: int, seconds: float) -> float:
    """The share of some seconds' training that is fgtrac's: hooks, callback, the thread that writes, checkpoints and
    their seals."""
    torch.manual_seed(0)
    with (
        tempfile.TemporaryDirectory() as folder,
        own_time() as own,
        adapter_timed(own),
        start_run(Path(folder) / "run", key=Path(folder) / "key.pem") as run,
    ):
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=batch, max_steps=1 << 30, learning_rate=0.05, optim="sgd",
            optim_args="momentum=0.9", save_strategy="no", logging_steps=100, use_cpu=True, disable_tqdm=True,
            dataloader_pin_memory=False, dataloader_drop_last=True, report_to=[], log_level="error",
        )  # fmt: skip
        costs = Costs(run, own)
        clock = Clock(costs, steps_a_checkpoint, seconds)
        trainer = Trainer(Net(), arguments, train_dataset=Images(images, labels), callbacks=[clock, TrainerTrace(run)])
        trainer.remove_callback(PrinterCallback)
        with costs.counted():
            trainer.train()
        run._sealer.finish()
    return costs.share(clock.whole_s - costs.checkpoints.wall_s)
