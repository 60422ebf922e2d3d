"""Eight people's rows, six of them trained on, recorded for real under each id scheme: what is true is simple."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset, TensorDataset

from fgtrac.api.run import start_run
from fgtrac.events.codec import encode

ROWS, TRAINED = 8, 6
SOURCE = "tensor float32 4"
PEOPLE = [f"person-{row}" for row in range(ROWS)]


def people() -> TensorDataset:
    inputs = torch.arange(ROWS * 4, dtype=torch.float32).reshape(ROWS, 4)
    return TensorDataset(inputs, torch.arange(ROWS) % 3)


def digest_of(row: int) -> bytes:
    """SHA-256 of the source of a row (docs/spec/identity.md); of row 99, one that nobody has."""
    values = torch.arange(row * 4, row * 4 + 4, dtype=torch.float32)
    return hashlib.sha256(encode(["float32", [4], values.numpy().tobytes()])).digest()


def record_people(
    folder: Path, scheme: str = "keyed", *, key: Sequence[str] | None = None, ends: bool = True, **options: Any
) -> Path:
    """folder/run.trace, signed with folder/key.pem: rows 0 to 5 are trained on in two epochs, row 6 is for validation,
    row 7 is registered and no more. `scheme` "subject" gives each row a subject."""
    data, before = people(), torch.get_rng_state()
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    ids = "public" if scheme == "public" else "keyed"
    subject = {"subject": PEOPLE} if scheme == "subject" else {}
    run = start_run(folder / "run", key=folder / "key.pem", keep="all", ids=ids)
    run.register(data, name="people", key=key, **subject, **options)
    run.register(Subset(data, [6]), role="validation")
    loader = run.watch(DataLoader(Subset(data, range(TRAINED)), batch_size=3, shuffle=True), role="train")
    for epoch in range(2):
        for inputs, targets in loader:
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        run.checkpoint(model, optimizer, val_loss=1.0 / (1 + epoch))
    run.close(finished=ends)
    torch.set_rng_state(before)
    return folder / "run.trace"
