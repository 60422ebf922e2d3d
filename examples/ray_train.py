"""Two workers of Ray Train that record one trace; the lines marked are what that takes.

Afterwards: fgtrac history runs/ray.trace TensorDataset:7
"""

from pathlib import Path

import ray
import ray.train
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import fgtrac  # fgtrac
from fgtrac.frameworks import ray_train  # fgtrac

TRACE = Path("runs/ray").absolute()  # fgtrac


def loop() -> None:
    """What each worker does."""
    context = ray.train.get_context()
    torch.manual_seed(0)
    inputs = torch.randn(600, 8)
    data = TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())
    sampler = DistributedSampler(data, context.get_world_size(), context.get_world_rank())
    loader = DataLoader(data, batch_size=20, sampler=sampler)
    model = prepare_model(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with ray_train.start_run(TRACE) as run:  # fgtrac
        run.watch(loader, role="train")  # fgtrac
        for epoch in range(3):
            sampler.set_epoch(epoch)
            for features, labels in loader:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(features), labels)
                loss.backward()
                optimizer.step()
            run.checkpoint(model.module, optimizer, epoch=epoch)  # fgtrac
    if context.get_world_rank() == 0:
        print(f"the last batch's loss {loss.item():.4f}")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20)
    storage = RunConfig(storage_path=str(Path("runs/ray-results").absolute()))
    trainer = TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=2), run_config=storage)
    ray_train.fit(trainer, TRACE)  # fgtrac: instead of trainer.fit()
    for found in fgtrac.open(f"{TRACE}.trace").verify().findings:  # fgtrac
        print(f"{found.verdict.value}: {found.words}")  # fgtrac
    ray.shutdown()
