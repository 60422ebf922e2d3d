"""Runs that anchor their heads with witnesses of ours, and what they leave: receipts, pending anchors, a sound log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from fgtrac.anchor.pending import PendingFile
from fgtrac.api.audit import audit_trace
from fgtrac.api.prior import signer_of
from fgtrac.api.run import Run, start_run
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.report import Verdict
from loopback_witness import LoopbackWitness
from replays import DATA, train

LONG_S = 120.0  # more than anything here takes


def begin(folder: Path, *parties: Any, **options: Any) -> Run:
    services = [party.service() if isinstance(party, LoopbackWitness) else party for party in parties]
    return start_run(folder / "run", key=folder / "key.pem", anchors=services, **options)


def epochs(run: Run, number: int, workers: int = 0) -> None:
    """Train, with a checkpoint after each epoch."""
    loader = run.watch(DataLoader(DATA, batch_size=8, shuffle=True, num_workers=workers), role="train")
    for _ in range(number):
        train(loader, epochs=1)
        run.checkpoint(torch.nn.Linear(1, 1), val_loss=1.0)


def trace_of(folder: Path) -> TraceDir:
    return TraceDir.open(folder / "run.trace")


def size_of(folder: Path) -> int:
    head = trace_of(folder).head()
    assert head is not None
    return head.size


def receipts(folder: Path) -> list[int]:
    return sorted({int(name.split("/")[1]) for name in trace_of(folder).names() if name.startswith("receipts/")})


def pending(folder: Path) -> dict[str, int]:
    signer = signer_of(trace_of(folder), folder / "key.pem")
    items = PendingFile(signer.pending_path).read()
    return {p.settings["key"].split("+")[0]: p.signed.head.size for p in items}


def holds(folder: Path) -> bool:
    signer = signer_of(trace_of(folder), folder / "key.pem")
    return audit_trace(trace_of(folder), signer.verifier).verdict is Verdict.HOLDS
