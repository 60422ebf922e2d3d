"""A trace of people who may be erased: real training with subjects, factors, crops and samplers' openings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.run import start_run
from fgtrac.events.codec import encode
from fgtrac.events.identity import subject_commitment
from fgtrac.score import factor_files
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault

ROWS = 300  # two shards of factors, of 256 rows at most, where one may hold one byte
ANN, BOB, SEVEN, ZOE = "ann.smith@example.org", "bob", 7, "zoe"  # ZOE has one row, and so is in one shard
SUBJECTS = [ANN if row < 20 else SEVEN if row < 40 else ZOE if row == 299 else BOB for row in range(ROWS)]
KEYS = [f"scan-{row:03}-of-somebody.png" for row in range(ROWS)]


def people() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(ROWS, 4, generator=generator)
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


def record(folder: Path) -> Path:
    """Train under trace at folder/run.trace, signed with folder/key.pem: `people` with subjects, crops of its first
    four rows, `held out` without."""
    data, torch_state = people(), torch.get_rng_state()
    torch.manual_seed(0)
    validation = TensorDataset(*(t[:10].clone() for t in data.tensors))
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    small = patch.object(factor_files, "SHARD_BYTES", 1)
    with small, start_run(folder / "run", key=folder / "key.pem", keep="all") as run:
        run.register(data, name="people", key=KEYS, subject=SUBJECTS, role="train")
        run.register(validation, name="held out", role="validation")
        run.transform("crops", data).record(TensorDataset(torch.arange(3)), parents=[0, 1, [2, 3]])
        run.score_with(loss=nn.CrossEntropyLoss(), train=data, validation=validation)
        loader = run.watch(DataLoader(data, batch_size=50, shuffle=True))
        for epoch in range(2):
            for inputs, targets in loader:
                optimizer.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            run.checkpoint(model, optimizer, val_loss=1.0 / (1 + epoch))
    torch.set_rng_state(torch_state)
    return folder / "run.trace"


def trace_id(path: Path) -> bytes:
    head = TraceDir.open(path).head()
    assert head is not None
    return bytes.fromhex(head.origin.removeprefix("fgtrac/"))


def key_of(path: Path, subject: Any) -> bytes:
    """A subject's key in the vault beside the trace."""
    vault = Vault.open(path.with_suffix(".vault"), trace_id(path))
    key = vault.find_secret(f"subject:{encode(subject).hex()}")
    vault.close()
    assert key is not None
    return key


def pseudonym_of(path: Path, subject: Any) -> bytes:
    return subject_commitment(key_of(path, subject))


def files_with(folder: Path, *words: bytes) -> set[str]:
    """Which files under a folder hold any of these bytes."""
    return {str(p.relative_to(folder)) for p in _files(folder) if any(w in p.read_bytes() for w in words)}


def _files(folder: Path) -> Iterator[Path]:
    return (Path(at, name) for at, _folders, names in os.walk(folder) for name in names)
