"""Ten lines of your own: a training loop under trace, and one sample's history afterwards."""

import torch
from torch.utils.data import DataLoader, TensorDataset

import fgtrac

data = TensorDataset(torch.randn(640, 8), torch.randint(0, 2, (640,)))
loader = DataLoader(data, batch_size=32, shuffle=True)
model = torch.nn.Linear(8, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

with fgtrac.start_run("runs/first") as run:
    loader = run.watch(loader, role="train")
    run.score_with(loss=torch.nn.functional.cross_entropy, train=data)
    for inputs, labels in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    run.checkpoint(model, optimizer)

trace = fgtrac.open("runs/first.trace")
print(trace.verify().verdict)
print(trace.history("TensorDataset:7"))
print(trace.explain("TensorDataset:7", k=3))
