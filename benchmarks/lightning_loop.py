"""The plain CNN in a Lightning Trainer: capture's own time over the loop's, for capture_overhead's lightning_share."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from fgtrac.api.run import start_run
from fgtrac.capture.own_time import OwnTime, own_time
from fgtrac.demo.training import LeNet
from fgtrac.frameworks.lightning import LightningTrace
from reproduced.measure import Costs

HOOKS = ("on_train_batch_start", "on_train_epoch_end")
QUIET = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)


class Net(lightning.LightningModule):
    """The demo's network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = LeNet()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, labels = batch
        return functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Clock(lightning.Callback):
    """Times the loop; ends it with the epoch in which `seconds` are over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun_s = self.whole_s = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.begun_s = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = time.perf_counter() - self.begun_s >= self.seconds

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.whole_s = time.perf_counter() - self.begun_s


@contextmanager
def adapter_timed(own: OwnTime, run: Any, costs: Costs) -> Iterator[None]:
    """What the callback does is fgtrac's; its checkpoints are timed as such, and not twice."""
    before, checkpoint = {name: getattr(LightningTrace, name) for name in HOOKS}, run.checkpoint

    def timed(*args: Any, **said: Any) -> Any:
        with costs.checkpoints.running():
            kept = checkpoint(*args, **said)
        costs.count += 1
        return kept

    run.checkpoint = own.foreign(timed)
    for name, hook in before.items():
        setattr(LightningTrace, name, own.own(hook))
    try:
        yield
    finally:
        for name, hook in before.items():
            setattr(LightningTrace, name, hook)


def measure(data: TensorDataset, batch: int, steps_a_checkpoint: int, seconds: float) -> float:
    """The share of some seconds' training that is fgtrac's: hooks, callback, the thread that writes, checkpoints and
    their seals. An epoch has as many steps as there are between checkpoints."""
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
    with (
        tempfile.TemporaryDirectory() as folder,
        own_time() as own,
        start_run(Path(folder) / "run", key=Path(folder) / "key.pem") as run,
    ):
        costs, clock = Costs(run, own), Clock(seconds)
        loader = DataLoader(data, batch, sampler=RandomSampler(data, num_samples=batch * steps_a_checkpoint))
        trainer = lightning.Trainer(
            max_epochs=-1, accelerator="cpu", callbacks=[clock, LightningTrace(run)], **QUIET
        )  # fmt: skip
        with adapter_timed(own, run, costs), costs.counted():
            trainer.fit(Net(), loader)
        run._sealer.finish()
    return costs.share(clock.whole_s - costs.checkpoints.wall_s)
