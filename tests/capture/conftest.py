"""What the capture tests share: data sets whose items say who they are, runs in a folder, and the log read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from fgtrac.api.run import Run, start_run
from fgtrac.events.codec import decode
from fgtrac.events.schema import ATTRIBUTION, STATUS, decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.tlog.tiles import read_entries

Event = dict[str, Any]


class Rows(Dataset[Any]):
    """Item i is (features, label, 1000 * mark + i): a batch tells which samples are in it."""

    def __init__(self, rows: int, mark: int = 0) -> None:
        self.features = torch.randn(rows, 4, generator=torch.Generator().manual_seed(mark))
        self.mark = mark

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        return self.features[index], index % 3, 1000 * self.mark + index


@dataclass(frozen=True)
class Use:
    """One sample's part in one batch, as the log says it."""

    dataset: str
    key: Any
    loader: int
    optimizer: int
    epoch: int
    batch: int
    step: int
    status: str
    attribution: str
    loss: float | None


@dataclass(frozen=True)
class Log:
    """A sealed trace, decoded."""

    events: list[Event]
    names: dict[bytes, tuple[str, Any, str | None]]

    def kind(self, kind: str) -> list[Event]:
        """Every entry of that kind."""
        return [e for e in self.events if e["kind"] == kind]

    def blocks(self) -> dict[bytes, list[bytes]]:
        """Block id -> the ids in it, by ordinal."""
        parts: dict[bytes, dict[int, bytes]] = {}
        for event in self.kind("samples"):
            parts.setdefault(event["block"], {})[event["part"]] = event["ids"]
        joined = {block: b"".join(ids for _, ids in sorted(p.items())) for block, p in parts.items()}
        return {block: [ids[i : i + 32] for i in range(0, len(ids), 32)] for block, ids in joined.items()}

    def keys(self, block: bytes, ordinals: Any) -> list[Any]:
        """The keys behind ordinals."""
        ids = self.blocks()[block]
        return [self.names[ids[o]][1] for o in ordinals]

    def uses(self) -> list[Use]:
        """Every sample of every batch of every `use` entry."""
        blocks, status, attribution = self.blocks(), _words(STATUS), _words(ATTRIBUTION)
        out = []
        for event in self.kind("use"):
            batch_of = np.repeat(np.arange(len(event["count"])), event["count"])
            for place, (b, ordinal) in enumerate(zip(batch_of, event["ordinals"], strict=True)):
                dataset, key, _ = self.names[blocks[event["block"]][ordinal]]
                whole = [int(event[n][b]) for n in ("epoch", "batch", "step")]
                said = status[int(event["status"][b])], attribution[int(event["attribution"][b])]
                loss = float(event["losses"][place]) if "losses" in event else None
                out.append(Use(dataset, key, event["loader"], event["optimizer"], *whole, *said, loss))
        return out

    def batches(self, status: str = "applied") -> dict[tuple[int, int, int], tuple[int, str, list[Any]]]:
        """(optimizer, epoch, batch) -> (step, attribution, sorted keys) of the batches with that status."""
        out: dict[tuple[int, int, int], tuple[int, str, list[Any]]] = {}
        for use in self.uses():
            if use.status == status:
                entry = out.setdefault((use.optimizer, use.epoch, use.batch), (use.step, use.attribution, []))
                entry[2].append(use.key)
        return {k: (step, sure, sorted(keys)) for k, (step, sure, keys) in sorted(out.items())}


def _words(codes: dict[str, int]) -> dict[int, str]:
    return {code: word for word, code in codes.items()}


def read_log(path: Path) -> Log:
    """Decode every sealed entry of the trace at `path`, and the vault beside it."""
    trace = TraceDir.open(path)
    head = trace.head()
    assert head is not None
    events = [decode_event(e) for e in read_entries(trace, 0, head.size, head.size)]
    vault = Vault.open(trace.vault_path, events[0]["trace"])
    names = {n.id: (n.dataset, decode(n.key), n.subject) for n in vault.names()}
    vault.close()
    return Log(events, names)


@pytest.fixture
def log() -> Callable[[Path], Log]:
    return read_log


@pytest.fixture
def rows() -> type[Rows]:
    return Rows


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run in the test's folder, signed by a key of its own; closed at the end if the test has not."""
    made = start_run(tmp_path / "run", key=tmp_path / "key.pem")
    yield made
    made.close()
