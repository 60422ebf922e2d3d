"""The main promise: training is bit-identical under trace, and the log says exactly what the batches say."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset

from fgtrac.api.run import start_run

Truth = dict[int, list[tuple[int, int]]]


def train(data: Any, workers: int, run: Any) -> tuple[dict[str, torch.Tensor], tuple[Any, ...], Truth]:
    """Three epochs; returns the weights, the global generators' states, and (epoch, step) of each sample's uses."""
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    if run is not None:
        run.watch(loader, role="train")
    truth: Truth = defaultdict(list)
    step = 0
    for epoch in range(3):
        for features, labels, who in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(features), labels).backward()
            optimizer.step()
            step += 1
            for sample in who.tolist():
                truth[sample].append((epoch, step))
        if run is not None:
            run.checkpoint(model, optimizer, val_loss=1 / (epoch + 1), epoch=epoch)
    legacy = np.random.get_state()
    states = (torch.get_rng_state().tolist(), legacy[1].tolist(), legacy[2], random.getstate())
    return model.state_dict(), states, truth


@pytest.mark.parametrize("workers", [0, 2])
def test_training_is_bit_identical_under_trace_and_every_use_is_the_truth_in_the_batches(
    tmp_path: Path, rows: Any, log: Callable[[Path], Any], workers: int
) -> None:
    def data() -> Any:
        pool = ConcatDataset([rows(60, mark=0), rows(50, mark=1)])
        return Subset(pool, torch.randperm(110, generator=torch.Generator().manual_seed(3))[:90].tolist())

    plain_weights, plain_states, plain_truth = train(data(), workers, None)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        weights, states, truth = train(data(), workers, run)
    assert weights.keys() == plain_weights.keys()
    assert all(torch.equal(weights[name], plain_weights[name]) for name in weights)
    assert states == plain_states
    assert truth == plain_truth
    assert len(truth) == 90

    said: Truth = defaultdict(list)
    for use in log(run.path).uses():
        assert (use.status, use.attribution, use.optimizer, use.loader) == ("applied", "exact", 1, 1)
        said[1000 * (use.dataset == "Rows-2") + use.key].append((use.epoch, use.step))
    assert {sample: sorted(uses) for sample, uses in said.items()} == truth
