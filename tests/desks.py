"""A user's desk for tests of keys: a key in a folder, two traces under it, and what may be asked of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

from fgtrac.api.keys import Rotated, rotate
from fgtrac.api.run import start_run
from fgtrac.api.trace import open_for_verification
from fgtrac.commit.keys import load_key, public_bytes
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import read_entries
from fgtrac.verify.report import Report, Verdict


@dataclass(frozen=True, slots=True)
class Desk:
    """A user's folder: key.pem, and the traces a and b."""

    folder: Path

    @property
    def key(self) -> Path:
        return self.folder / "keys" / "key.pem"

    @property
    def public(self) -> bytes:
        return public_bytes(load_key(self.key))

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.trace"

    def record(self, name: str, **options: Any) -> None:
        """A run that registers eight samples and logs one value."""
        with start_run(self.path(name), key=self.key, ids="public", flush_interval_s=0, **options) as run:
            run.register(TensorDataset(torch.arange(8.0)[:, None]), role="train")
            run.log(1, loss=0.5)

    def rotate(self, *names: str, revoke: bool = False) -> tuple[Rotated, ...]:
        return rotate([self.path(n) for n in names], revoke=revoke, path=self.key).traces

    def verify(self, name: str, key: bytes | None) -> Report:
        return open_for_verification(self.path(name)).verify(None if key is None else key.hex())

    def entries(self, name: str) -> list[dict[str, Any]]:
        trace = TraceDir(self.path(name))
        head = trace.head()
        assert head is not None
        return [decode_event(entry) for entry in read_entries(trace, 0, head.size, head.size)]

    def signer_of_head(self, name: str) -> str:
        return open_for_verification(self.path(name)).verify(None).findings[0].words


def holds(report: Report) -> bool:
    return report.verdict is Verdict.HOLDS
