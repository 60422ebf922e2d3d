"""What capture costs the demo's CNN at batch 128: its own time, and training with it against training without.

own_time_share is measured where it happens: hooks, loader patch, flushes, checkpoints with what they write, and the
processor time of the background thread and of the seals beside the training, over the loop's time. The loop is the
demo's, on one thread, with a checkpoint every 200 steps (a few seconds). own_time_share_each_epoch is the same with a
checkpoint every 39 steps, after each pass over 5,000 images, and own_time_share_without_checkpoints with none counted.
trainer_share is own_time_share of the same network in a Hugging Face Trainer, lightning_share in a Lightning Trainer.
cnn_ratio compares blocks of 50 steps with and without a run, alternating in one process; aa_ratio compares two arms
that both train without.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.run import start_run
from fgtrac.capture.own_time import own_time
from fgtrac.demo.data import load_images
from fgtrac.demo.training import LeNet, one_thread
from harness import report
from reproduced.measure import Costs

BATCH = 128
BLOCK_STEPS = 50
ARM_S = 20.0
STEPS_A_CHECKPOINT = 200


class Arm:
    """One model in training: its own weights, optimizer and shuffled loader, which never ends."""

    model: nn.Module

    def __init__(self, data: TensorDataset) -> None:
        torch.manual_seed(0)
        self.model = LeNet()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.loader = DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)
        self._batches: Iterator[Any] = iter(())
        self.seconds: list[float] = []

    def loss(self, batch: Any) -> torch.Tensor:
        """Of one batch of the loader."""
        images, labels = batch
        return functional.cross_entropy(self.model(images), labels)

    def restart(self) -> None:
        """Begin a new pass over the loader at the next step."""
        self._batches = iter(())

    def train(self, steps: int) -> None:
        """That many ordinary steps."""
        for _ in range(steps):
            try:
                batch = next(self._batches)
            except StopIteration:
                self._batches = iter(self.loader)
                batch = next(self._batches)
            self.optimizer.zero_grad()
            self.loss(batch).backward()
            self.optimizer.step()


def time_block(arm: Arm, steps: int, traced: bool) -> None:
    """One block of steps; with `traced`, under a run that is started before and sealed after the clock runs."""
    arm.restart()
    if not traced:
        start = time.perf_counter()
        arm.train(steps)
        arm.seconds.append(time.perf_counter() - start)
        return
    with tempfile.TemporaryDirectory() as folder, start_run(Path(folder) / "run", key=Path(folder) / "key.pem") as run:
        run.watch(arm.loader, role="train")
        start = time.perf_counter()
        arm.train(steps)
        run._recorder.flush()  # what the block recorded is encoded and written within the block
        arm.seconds.append(time.perf_counter() - start)


def compare(make: Callable[[], Arm], steps: int, arm_s: float) -> tuple[Arm, Arm, Arm]:
    """Blocks of that many steps of three arms in turn (plain, control, traced), the order moving on by one each round,
    until each has had `arm_s` seconds."""
    plain, control, traced = arms = make(), make(), make()
    for arm in arms:
        arm.train(steps)  # warm
    turn = 0
    while min(sum(arm.seconds) for arm in arms) < arm_s:
        for arm in (*arms[turn:], *arms[:turn]):
            time_block(arm, steps, traced=arm is traced)
        turn = (turn + 1) % 3
    return plain, control, traced


def ratio(above: Arm, below: Arm) -> tuple[float, float, float]:
    """Median of the rounds' ratios, and its 95 % interval by bootstrap over rounds."""
    rounds = np.array(above.seconds) / np.array(below.seconds)
    generator = np.random.default_rng(0)
    drawn = np.median(rounds[generator.integers(0, len(rounds), (4000, len(rounds)))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.median(rounds)), float(low), float(high)


def compared(name: str, plain: Arm, control: Arm, traced: Arm) -> tuple[dict[str, float], str]:
    """The ratios with and without capture, and in words what they allow to say."""
    found, low, high = ratio(traced, plain)
    aa, aa_low, aa_high = ratio(control, plain)
    verdict = f"{name} ratio {found:.4f}, 95 % from {low:.4f} to {high:.4f}; control {aa_low:.4f} to {aa_high:.4f}"
    if not aa_low <= 1 <= aa_high:
        verdict += ": cannot tell, two arms without capture differ"
    figures = {f"{name}_ratio": found, f"{name}_ratio_lower95": low, f"{name}_ratio_upper95": high, "aa_ratio": aa}
    return figures | {"rounds": len(plain.seconds)}, verdict


def measure_own_time(
    arm: Arm, steps_a_checkpoint: int, arm_s: float, attend: Callable[[Any, Costs], object] = lambda *_: None
) -> dict[str, float]:
    """A run of `arm_s` seconds with everything that fgtrac does in it on the clock. `attend` may have it record
    modality weights at each checkpoint."""
    with (
        tempfile.TemporaryDirectory() as folder,
        own_time() as own,
        start_run(Path(folder) / "run", key=Path(folder) / "key.pem") as run,
    ):
        run.watch(arm.loader, role="train")
        costs, steps, start = Costs(run, own), 0, time.perf_counter()
        attend(run, costs)
        with costs.counted():
            while time.perf_counter() - start < arm_s:
                arm.train(steps_a_checkpoint)
                steps += steps_a_checkpoint
                costs.checkpoint(arm.model, arm.optimizer)
        whole_s = time.perf_counter() - start
        run._sealer.finish()
    loop_s = whole_s - costs.checkpoints.wall_s
    return {
        "share": costs.share(loop_s),
        "without_checkpoints": costs.share_without_checkpoints(loop_s),
        "passes_share": costs.passes.wall_s / whole_s,
        "hooks_us_per_step": costs.hooks_s / steps * 1e6,
        "background_us_per_step": costs.background_s / steps * 1e6,
        "checkpoint_ms": (costs.checkpoints.wall_s - costs.passes.wall_s) / costs.count * 1e3,
        "seals_cpu_ms": run._sealer.cpu_s * 1e3,
        "ms_per_step": whole_s / steps * 1e3,
    }


def main() -> None:
    from lightning_loop import measure as measure_lightning  # which take seconds to import
    from trainer_loop import measure as measure_trainer

    source = load_images(None)
    data = TensorDataset(torch.from_numpy(source.images), torch.from_numpy(source.labels))
    with one_thread():
        own = measure_own_time(Arm(data), STEPS_A_CHECKPOINT, ARM_S)
        each_epoch = measure_own_time(Arm(data), len(data) // BATCH, ARM_S)
        in_trainer = measure_trainer(*data.tensors, BATCH, STEPS_A_CHECKPOINT, ARM_S)
        in_lightning = measure_lightning(data, BATCH, STEPS_A_CHECKPOINT, ARM_S)
        plain, control, traced = compare(lambda: Arm(data), BLOCK_STEPS, ARM_S)
    figures = {
        "trainer_share": in_trainer,
        "lightning_share": in_lightning,
        "own_time_share": own.pop("share"),
        "own_time_share_each_epoch": each_epoch["share"],
        "own_time_share_without_checkpoints": own.pop("without_checkpoints"),
        **{name: value for name, value in own.items() if name != "passes_share"},  # images have no modalities
    }
    ratios, verdict = compared("cnn", plain, control, traced)
    report("capture_overhead", figures | ratios, verdict)


if __name__ == "__main__":
    main()
