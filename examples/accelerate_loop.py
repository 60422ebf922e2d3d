"""A loop written with Accelerate, and the five lines (marked) that record it, in one process or in several.

Afterwards: fgtrac history runs/accelerated.trace TensorDataset:7
"""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fgtrac  # fgtrac
from fgtrac.frameworks.accelerate import watch  # fgtrac

torch.manual_seed(0)
inputs = torch.randn(600, 8)
data = TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())
accelerator = Accelerator(gradient_accumulation_steps=2)
model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data, batch_size=20, shuffle=True))

with fgtrac.start_run("runs/accelerated") as run:  # fgtrac
    watch(run, loader, role="train")  # fgtrac
    for epoch in range(4):
        for features, labels in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(features), labels)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        run.checkpoint(accelerator.unwrap_model(model), optimizer, epoch=epoch)  # fgtrac
        accelerator.print(f"epoch {epoch}: the last batch's loss {loss.item():.4f}")
