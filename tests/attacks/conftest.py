"""A small sealed trace to lie about: some training, kept models with their factors, contributions, predictions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.run import start_run
from fgtrac.commit.keys import load_key
from fgtrac.store.trace_dir import TraceDir


def record(folder: Path) -> TraceDir:
    """A run of 48 samples and three epochs at folder/run.trace; folder/older.trace is a copy made before its end."""
    torch.manual_seed(0)
    data, held = (TensorDataset(torch.randn(n, 4), torch.randint(0, 2, (n,))) for n in (48, 12))
    loader = DataLoader(data, batch_size=16, shuffle=True)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with start_run(folder / "run", key=folder / "key.pem") as run:
        run.watch(loader, role="train")
        run.register(held, name="held", role="validation")
        run.score_with(loss=torch.nn.CrossEntropyLoss(), train=data, validation=held)
        for epoch in range(3):
            for inputs, labels in loader:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
            run.checkpoint(model, optimizer, val_loss=1.0 / (epoch + 1))
        run._sealer.finish()  # a seal runs beside the training: the copy is taken behind it, not amid it
        shutil.copytree(run.path, folder / "older.trace")
        run.predictions(data, model(data.tensors[0]))
    return TraceDir.open(run.path)


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> TraceDir:
    return record(tmp_path_factory.mktemp("attacks"))


@pytest.fixture(scope="session")
def key(sealed: TraceDir) -> Ed25519PrivateKey:
    return load_key(sealed.path.parent / "key.pem")
