"""A small training, and the functions FILE.py:FUNCTION that give its data and model to whoever scores it.

In an engine's workers, WORKER_DIES=WORDS in the environment kills the first one that would put a file in place with
these words in its path; it leaves FOLDER/died, of WORKER_FOLDER=FOLDER. With WORKER_LIES, workers have other data.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api import factor_passes
from fgtrac.api.run import reopen, start_run
from fgtrac.engine.alone import Alone
from fgtrac.engine.units import Engine
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import read_entries

ROWS = {"train": 90, "validation": 20, "test": 15}
CALLER = "WORKER_CALLER"  # the process that gives units out, by its number


def rows_a_shard(layers: Any, dtype: str) -> int:
    """Of 90 training rows, shards of 32, 32 and 26; the caller puts it in place, too."""
    return 32


def points(role: str) -> TensorDataset:
    generator = torch.Generator().manual_seed(len(role))
    inputs = torch.randn(ROWS[role], 8, generator=generator)
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))


def record(folder: Path) -> None:
    """Train for three epochs, with a checkpoint after each, and score nothing."""
    model, data = net(), {role: points(role) for role in ROWS}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with start_run(folder / "run", key=folder / "key.pem", keep="all") as run:
        for role, rows in data.items():
            run.register(rows, name=role, role=role)
        for epoch in range(3):
            for inputs, targets in run.watch(DataLoader(data["train"], batch_size=16, shuffle=True)):
                optimizer.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            run.checkpoint(model, optimizer, val_loss=1.0 / (epoch + 1), epoch=epoch)


def again(run: Any) -> nn.Module:
    """Everything is scored."""
    return _give(run)


def some_with_matrix(run: Any) -> nn.Module:
    """50 training rows, and the Gauss-Newton matrix is kept."""
    return _give(run, factors="sample:50", ggn=True)


def spoiled(run: Any) -> nn.Module:
    """One validation sample has no finite loss."""
    odd = points("validation").tensors[0][7]

    def forward(model: nn.Module, batch: Any) -> Any:
        is_odd = (batch[0] == odd).all(1, keepdim=True)
        return model(batch[0]) + torch.where(is_odd, float("nan"), 0.0), batch[1]

    return _give(run, forward=forward)


def _give(run: Any, **options: Any) -> nn.Module:
    data = {role: points(role) for role in ROWS}
    if os.environ.get(CALLER) != str(os.getpid()):
        factor_passes.shard_rows = rows_a_shard
        if "WORKER_LIES" in os.environ:
            data["train"].tensors[0].add_(1)
        if "WORKER_DIES" in os.environ:
            _die_once(os.environ["WORKER_DIES"], Path(os.environ["WORKER_FOLDER"]) / "died")
    for role, rows in data.items():
        run.register(rows, name=role)
    run.score_with(**{"loss": nn.CrossEntropyLoss()} | data | options)
    return net()


def _die_once(words: str, note: Path) -> None:
    rename = durable._rename

    def renaming(source: Path, target: Path) -> None:
        if words in str(target) and not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    durable._rename = renaming


class Inside(Alone):
    """An engine whose only worker is this process, which loads function, data and model again for its units."""

    name = "inside"

    def results(self, *given: Any, **how: Any) -> Iterator[Any]:
        os.environ[CALLER] = "another"
        yield from super().results(*given, **how)


@dataclass(frozen=True)
class Recorded:
    """A copy of what was recorded."""

    folder: Path

    @classmethod
    def copy(cls, recorded: Path, folder: Path) -> Recorded:
        shutil.copytree(recorded, folder)
        return cls(folder)

    @property
    def trace(self) -> TraceDir:
        return TraceDir.open(self.folder / "run.trace")

    def score(self, engine: str | Engine | None, name: str = "again", **options: Any) -> dict[str, bytes]:
        """Score it with the data and the model of the function `name`; the files of factors."""
        function = None if engine is None else f"{__file__}:{name}"
        with reopen(self.folder / "run", key=self.folder / "key.pem") as run:
            model = globals()[name](run)
            run.score(model, engine=engine, function=function, **options)
        return self.files()

    def inodes(self) -> dict[str, int]:
        """Which file each of them is: one that was put in its place is another."""
        top = self.folder / "run.trace/artifacts/scoring"
        return {str(path.relative_to(top)): path.stat().st_ino for path in top.rglob("*.safetensors")}

    def recorded_scores(self) -> dict[tuple[int, bytes], bytes]:
        """The contributions in the log: (step, block and ordinals) -> scores."""
        head = self.trace.head()
        assert head is not None
        entries = map(decode_event, read_entries(self.trace, 0, head.size, head.size))
        mine = [event for event in entries if event["kind"] == "contribution"]
        return {(e["step"], bytes(e["block"]) + e["ordinals"].tobytes()): e["scores"].tobytes() for e in mine}

    def files(self) -> dict[str, bytes]:
        """Every file of factors: path -> bytes."""
        top = self.folder / "run.trace/artifacts/scoring"
        return {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}
