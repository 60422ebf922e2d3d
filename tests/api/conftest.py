"""What the tests of this folder share: a small problem, trained under trace; what its log says; a desk; witnesses."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from anchored_traces import LOG_KEY, write_key
from desks import Desk
from fgtrac.api.ledger import Ledger, read_ledger
from fgtrac.api.run import Run, start_run
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import read_entries
from loopback_witness import LoopbackWitness, closed_witness
from replays import DATA, begin, train
from traces import Made, make_trace

EPOCHS = 3


def points(rows: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 8, generator=generator)
    return TensorDataset(inputs, (inputs[:, :3].argmax(1)).long())


@dataclass
class Problem:
    """Three classes in eight dimensions, a net with dropout and batch normalisation, and where it is recorded."""

    folder: Path
    rows: int = 90
    train: TensorDataset = field(init=False)
    validation: TensorDataset = field(default_factory=lambda: points(20, 2))
    test: TensorDataset = field(default_factory=lambda: points(15, 3))

    def __post_init__(self) -> None:
        self.train = points(self.rows, 1)

    @property
    def trace(self) -> TraceDir:
        return TraceDir.open(self.folder / "run.trace")

    @property
    def ledger(self) -> Ledger:
        return read_ledger(self.trace)

    def start(self, **options: Any) -> Run:
        return start_run(self.folder / "run", key=self.folder / "key.pem", **({"keep": "all"} | options))

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        key = load_pem_private_key((self.folder / "key.pem").read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        return key

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))

    def score_with(self, run: Run, **options: Any) -> None:
        run.score_with(**({"loss": nn.CrossEntropyLoss()} | self.data | options))

    @property
    def data(self) -> dict[str, Any]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def fit(self, run: Run, model: nn.Module, *, epochs: int = EPOCHS, workers: int = 0) -> torch.optim.Optimizer:
        """Train under trace, with a checkpoint after each epoch."""
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        loader = run.watch(DataLoader(self.train, batch_size=16, shuffle=True, num_workers=workers), role="train")
        for epoch in range(epochs):
            model.train()
            for inputs, targets in loader:
                optimizer.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            run.checkpoint(model, optimizer, val_loss=1.0 / (epoch + 1), epoch=epoch)
        return optimizer

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        trace, head = self.trace, self.trace.head()
        assert head is not None
        found = [decode_event(entry) for entry in read_entries(trace, 0, head.size, head.size)]
        return [event for event in found if event["kind"] in kinds]

    def files(self) -> dict[str, bytes]:
        """Every file of factors: path -> bytes."""
        folder = self.folder / "run.trace" / "artifacts" / "scoring"
        paths = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
        return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    return Problem(tmp_path)


@pytest.fixture
def another(tmp_path: Path) -> Problem:
    """The same problem, recorded elsewhere."""
    return Problem(tmp_path / "another")


@pytest.fixture
def random_state() -> Callable[[], tuple[bytes, Any, Any]]:
    """The state of every generator."""
    return lambda: (torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes(), random.getstate())


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """The problem, trained and scored: to be read, and copied where it is lied about."""
    problem = Problem(tmp_path_factory.mktemp("scored"))
    with problem.start() as run:
        problem.score_with(run)
        problem.fit(run, problem.model())
    return problem


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.record("a")
    desk.record("b")
    return desk


@pytest.fixture
def desk(recorded: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A copy, whose key is the user's own."""
    shutil.copytree(recorded.folder, tmp_path / "desk")
    copy = Desk(tmp_path / "desk")
    monkeypatch.setenv("FGTRAC_KEY", str(copy.key))
    return copy


@pytest.fixture
def shuffled(tmp_path: Path) -> Path:
    """Two epochs of five shuffled batches of eight, public ids."""
    with begin(tmp_path, ids="public") as run:
        train(run.watch(DataLoader(DATA, batch_size=8, shuffle=True), role="train"))
    return tmp_path


@pytest.fixture
def witness() -> Iterator[LoopbackWitness]:
    made = LoopbackWitness()
    with made.running():
        yield made


@pytest.fixture
def down() -> LoopbackWitness:
    return closed_witness()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A sealed trace, whose signing key is the user's."""
    write_key(tmp_path / "key.pem", LOG_KEY)
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    return make_trace(tmp_path)
