"""The true trace that the lies are told about: two epochs and an end, then resumed for a third.

photos   40 rows, of which 4 to 35 train; 0 to 3 are made into crops; 32 to 35 join in the last epoch only; 36 to 39
         are never used
crops    two children of each of the photos 0 to 3, which train
held     12 rows, for validation
spare    6 rows that are excluded, whose contents are not digested
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from fgtrac.api.run import Run, start_run
from fgtrac.store.trace_dir import TraceDir


def record(folder: Path) -> TraceDir:
    """Train and record at folder/run.trace, signed with folder/key.pem; folder/older.trace is its state before the
    last epoch."""
    torch.manual_seed(0)
    photos, crops, held, spare = (TensorDataset(torch.randn(n, 4), torch.randint(0, 2, (n,))) for n in (40, 8, 12, 6))
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for rows, epochs in ((range(4, 32), 2), (range(4, 36), 1)):
        with start_run(folder / "run", key=folder / "key.pem", keep="all", resume=len(rows) == 32) as run:
            run.register(photos, name="photos")
            run.transform("crop", photos).record(crops, [0, 0, 1, 1, 2, 2, 3, 3])
            run.register(held, name="held", role="validation")
            run.register(spare, name="spare", role="excluded", content=False)
            every, data = (ConcatDataset([Subset(photos, list(some)), crops]) for some in (range(4, 36), rows))
            run.score_with(loss=torch.nn.CrossEntropyLoss(), train=every, validation=held)
            _train(run, data, epochs, model, optimizer)
            run.predictions(held, model(held.tensors[0]))
        if len(rows) < 32:
            shutil.copytree(run.path, folder / "older.trace")
    return TraceDir.open(run.path)


def _train(
    run: Run, data: Dataset[tuple[torch.Tensor, ...]], epochs: int, model: torch.nn.Module, optimizer: torch.optim.SGD
) -> None:
    loader = run.watch(DataLoader(data, batch_size=9, shuffle=True), role="train")
    for _epoch in range(epochs):
        for inputs, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        run.checkpoint(model, optimizer, val_loss=1.0)
