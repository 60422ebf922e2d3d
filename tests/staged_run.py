"""A run whose samples were made by stages: documents and labels joined, cut into windows, packed, trained on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import DataLoader, TensorDataset

import fgtrac
from fgtrac.tlog.note import Verifier, parse_vkey

TEXTS = ["abcdefg", "hi", "", "jklm", "nopqrstuv", "zz"]
BASE = 256  # token 256 * row + place: a batch tells which item of which source row it has


@dataclass(frozen=True)
class StagedRun:
    """The trace, who vouches for it, and how many rows of batches had an item of each document."""

    path: Path
    key: Path
    verifier: Verifier
    truth: Counter[int]


def staged_run(folder: Path) -> StagedRun:
    """The third document is empty, the sixth has no label; the first three packed rows are trained on, twice."""
    documents = pd.DataFrame({"row": range(6), "id": list("uvwxyz"), "text": TEXTS})
    labels = pd.DataFrame({"id": list("uvwxy"), "label": [0, 1, 0, 1, 0]})
    truth: Counter[int] = Counter()
    with fgtrac.start_run(folder / "run", key=folder / "key.pem", ids="public") as run:
        run.register(documents, name="documents")
        run.register(labels, name="labels")
        joined = run.transform("label", documents).join(labels, on="id")
        numbers = {text: row for row, text in zip(joined["row"], joined["text"], strict=True)}
        tokens = run.transform("tokens", joined).tokenise(
            lambda text: [BASE * numbers[text] + n for n in range(len(text))], "text", size=3
        )
        packed = run.transform("pack", tokens).pack("tokens", 4)
        chosen = run.transform("chosen", packed).select(range(3))
        rows = TensorDataset(torch.tensor(chosen["tokens"].tolist()))
        run.register(rows, rows=chosen, role="train")
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
        for _ in range(2):
            for (batch,) in run.watch(DataLoader(rows, batch_size=2)):
                truth.update(row for item in batch.tolist() for row in {token // BASE for token in item})
                model(batch.float()).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        verifier = parse_vkey(run.vkey)
    return StagedRun(folder / "run.trace", folder / "key.pem", verifier, truth)
