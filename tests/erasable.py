"""A trace of people who may be erased: real training with subjects, factors, crops and samplers' openings."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.run import start_run
from fgtrac.commit.signer import Signer
from fgtrac.events.codec import encode
from fgtrac.events.identity import keyed_id, preimage, subject_commitment
from fgtrac.score import factor_files, target_files
from fgtrac.score.factor_files import Rows, encode_rows, rows_path
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from traces import TRACE_ID, Made, Writing

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
    four rows, `held out` without; predictions of the last state."""
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
        with torch.no_grad():
            run.predictions(data, model(data.tensors[0]))
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


def write_small(folder: Path) -> Path:
    """The same without torch, in a moment: six samples of two subjects, a rows file with some of either's, a target."""
    signer = Signer.open(TRACE_ID, folder / "key.pem")
    vault = Vault.create(folder / "run.vault", TRACE_ID)
    vault.secret("run")
    subjects = [ANN, BOB, ANN, BOB, BOB, ANN]
    keys = [vault.secret(f"subject:{encode(s).hex()}") for s in subjects]
    ids = [keyed_id(key, preimage("people", name)) for key, name in zip(keys, KEYS, strict=False)]
    vault.put_names((i, "people", encode(k), s) for i, k, s in zip(ids, KEYS, subjects, strict=False))
    vault.put_opening("sampler/00/1", b"how the epoch was drawn")
    vault.close()
    with sqlite3.connect(vault.path) as db:  # what somebody deleted by hand lies in free pages
        db.execute("PRAGMA secure_delete=OFF")
        db.executemany("INSERT INTO secrets VALUES (?, ?)", ((f"{n} {KEYS[0]}", bytes(32)) for n in range(200)))
        db.commit()
        db.execute("DELETE FROM secrets WHERE scope LIKE '%.png'")
    db.close()
    writing = Writing(Made(TraceDir.create(folder / "run.trace"), signer, tuple(ids)), bytes((1,)) * 16)
    writing.run_entry("public")
    record = writing.recorder.record
    record("dataset", {"name": "people", "id_scheme": "subject", "rows": len(ids)})
    order = np.argsort(writing.placement.ordinals)
    pseudonyms = b"".join(subject_commitment(keys[row]) for row in order)
    columns = {"ids": b"".join(ids[row] for row in order), "subjects": pseudonyms}
    record("samples", {"dataset": "people", "block": writing.block, "part": 0, "parts": 1, **columns})
    writing.use([0, 1, 2, 3])
    rows = encode_rows(Rows((writing.block,), writing.placement.ordinals[:4]), "train")
    for path, data in ((rows_path("train", rows), rows), (f"{target_files.FOLDER}/0.safetensors", b"gradients")):
        durable.write_file(folder / "run.trace" / path, data)
        said = {"path": path, "sha256": hashlib.sha256(data).digest(), "size": len(data), "about": "scores"}
        record("artifact", {**said, "media_type": "application/vnd.safetensors"})
    writing.end()
    writing.made.seal()
    return folder / "run.trace"
