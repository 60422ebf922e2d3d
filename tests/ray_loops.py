"""What workers of Ray run in tests; they import it by name."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from fgtrac.frameworks import ray_train

ROWS = 31


def loop(config: dict[str, Any]) -> None:
    """Train, and write down what each batch held."""
    rank, count = dist.get_rank(), dist.get_world_size()
    os.environ["FGTRAC_KEY"] = config["key"]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = TensorDataset(torch.arange(ROWS, dtype=torch.float32)[:, None])
    sampler: Any = DistributedSampler(data, count, rank, seed=3)
    loader = DataLoader(data, 4, sampler=sampler)
    model: Any = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    folder = Path(config["folder"])
    place = folder / f"host-{rank}" if config.get("apart") else folder
    place.mkdir(exist_ok=True)
    attempt = len(list(folder.glob(f"told-{rank}-*")))
    told: list[Any] = []
    with ray_train.start_run(place / "run", flush_interval_s=0.05, config={"lr": 1e-6}) as run:
        run.watch(loader, role="train")
        for epoch in range(attempt, 2):
            sampler.set_epoch(epoch)
            for batch, (values,) in enumerate(loader):
                model(values).square().mean().backward()
                if config.get("killed_at") == [rank, epoch, batch] and attempt == 0:
                    (folder / f"told-{rank}-0").write_text(json.dumps(told))
                    time.sleep(0.3)
                    os.kill(os.getpid(), signal.SIGKILL)
                optimizer.step()
                optimizer.zero_grad()
                told.append((epoch, batch, run.step, values.flatten().int().tolist()))
                (folder / f"told-{rank}-{attempt}").write_text(json.dumps(told))
            run.checkpoint(model.module, optimizer, val_loss=1 / (epoch + 1))
    ray.train.report({"loss": 0.0})
