"""What benchmarks call own time: checkpoints and the entries they record are in it, the model's own passes are not."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.cost import Cost
from fgtrac.api.run import start_run
from fgtrac.capture.own_time import own_time
from fgtrac.demo.figures import Recorded, cost_figures
from fgtrac.store.trace_dir import TraceDir

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
capture_overhead = importlib.import_module("capture_overhead")

PASS_S = 0.4


class Small:
    """A linear model in training, whose modality weights take their time, most of it waiting."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(0)
        data = TensorDataset(torch.randn(64, 4, generator=rng), torch.randint(0, 3, (64,), generator=rng))
        self.data, self.loader, self.model = data, DataLoader(data, batch_size=16), torch.nn.Linear(4, 3)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.costs: Any = None

    def train(self, steps: int) -> None:
        for _, (inputs, labels) in zip(range(steps), self.loader, strict=False):
            self.optimizer.zero_grad()
            cross_entropy(self.model(inputs), labels).backward()
            self.optimizer.step()

    def attend(self, run: Any, costs: Any) -> None:
        def weigh(model: Any) -> torch.Tensor:
            time.sleep(PASS_S)
            return torch.full((64, 2), 0.5)

        self.costs = costs
        run.attention_with(weights=costs.passed(weigh), data=self.data, modalities=("image", "words"))


def test_passes_for_modality_weights_are_kept_apart_from_own_time_and_are_stated() -> None:
    small = Small()
    found = capture_overhead.measure_own_time(small, 4, 2 * PASS_S, small.attend)
    costs = small.costs
    assert costs.passes.wall_s >= costs.count * PASS_S > 0
    assert costs.passes.cpu_s < costs.passes.wall_s / 2  # it waited
    assert costs.checkpoints.wall_s > costs.passes.wall_s
    assert found["checkpoint_ms"] < 1e3 * PASS_S
    assert found["passes_share"] > 0.3


def test_a_demo_keeps_them_apart_too(tmp_path: Path) -> None:
    small = Small()
    with own_time() as own, start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        run.watch(small.loader, role="train")
        small.train(4)
    own.seconds, own.background_s = 0.3, 0.1
    scoring = Cost(0.1, 0, 0, checkpoints=1, measured_seconds=0.5)
    recorded = Recorded(run.path, 10.0, own, (1.0, 1.5), 0.2, 0.1, scoring, attention_s=0.8)
    found = cost_figures(TraceDir.open(run.path), recorded)
    assert found["own_time_share_without_checkpoints"] == pytest.approx(0.4 / 10)
    checkpoints_s = 2.5 - 0.5 - 0.8
    assert found["own_time_share_each_epoch"] == pytest.approx((0.4 + checkpoints_s + 0.2) / (10 + checkpoints_s))
    assert (found["events"], found["neighbours"], found["attention_s"]) == (64, 0, 0.8)


def test_processor_time_of_a_part_is_within_that_of_the_whole() -> None:
    measure = importlib.import_module("reproduced.measure")
    whole, part = measure.Clock(), measure.Clock()
    with whole.running(), part.running():
        time.sleep(0.2)
    assert part.cpu_s <= whole.cpu_s < 0.2 <= part.wall_s <= whole.wall_s
