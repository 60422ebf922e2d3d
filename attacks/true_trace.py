"""The true trace that the lies are told about: two epochs and an end, then resumed for a third.

photos   40 rows, of which 4 to 35 train; 0 to 3 are made into crops; 32 to 35 join in the last epoch only; 36 to 39
         are never used
crop     two children of each of the photos 0 to 3, which train
held     12 rows, for validation
spare    6 rows that are excluded, whose contents are not digested
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from fgtrac.api.run import Run, start_run
from fgtrac.store.trace_dir import TraceDir

Data = Dataset[tuple[torch.Tensor, ...]]


def record(folder: Path, sealed: Callable[[Path], object] = lambda trace: None) -> TraceDir:
    """Train and record at folder/run.trace, signed with folder/key.pem; folder/older.trace is its state before the
    last epoch. `sealed` is called with the trace after each of its two ends."""
    data = _data()
    model = torch.nn.Linear(4, 2)
    for rows, epochs in ((range(4, 32), 2), (range(4, 36), 1)):
        how = {"keep": "all", "flush_interval_s": 3600.0, "resume": len(rows) == 32}  # one entry an epoch and block
        with start_run(folder / "run", key=folder / "key.pem", **how) as run:
            _register(run, data)
            run.log(accuracy=0.5)
            train(run, ConcatDataset([Subset(data["photos"], rows), data["crop"]]), epochs, model)
            run.predictions(data["held"], model(data["held"].tensors[0]))
        sealed(run.path)
        if len(rows) < 32:
            shutil.copytree(run.path, folder / "older.trace")
    return TraceDir.open(run.path)


def again(run: Any) -> torch.nn.Module:
    """What the verifier has, for `fgtrac verify --with`: the data, the loss and the model's code."""
    _register(run, _data())
    return torch.nn.Linear(4, 2)


def train(run: Run, data: Data, epochs: int = 1, model: torch.nn.Module | None = None) -> None:
    """Train on all of the data in batches of 9, and keep the state after each epoch."""
    model = model or torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = run.watch(DataLoader(data, batch_size=9, shuffle=True), role="train")
    for _epoch in range(epochs):
        for inputs, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        run.checkpoint(model, optimizer, val_loss=1.0)


def _data() -> dict[str, TensorDataset]:
    torch.manual_seed(0)
    sizes = {"photos": 40, "crop": 8, "held": 12, "spare": 6}
    return {name: TensorDataset(torch.randn(n, 4), torch.randint(0, 2, (n,))) for name, n in sizes.items()}


def _register(run: Any, data: dict[str, TensorDataset]) -> None:
    """Say which data there is, what was made of it, and what scores are made from; `run` takes the verbs of a run."""
    run.register(data["photos"], name="photos")
    run.register(data["held"], name="held", role="validation")
    run.register(data["spare"], name="spare", role="excluded", content=False)
    run.transform("crop", data["photos"]).record(data["crop"], [0, 0, 1, 1, 2, 2, 3, 3])
    scored = ConcatDataset([Subset(data["photos"], range(4, 36)), data["crop"]])
    run.score_with(loss=torch.nn.CrossEntropyLoss(), train=scored, validation=data["held"])
