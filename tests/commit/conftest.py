"""A trace being written without a training loop: a writer, its samples, and a signer, all from fixed seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.commit.sequencer import SealResult, seal
from fgtrac.commit.signer import Signer
from fgtrac.events.identity import block_id, make_ids, preimage
from fgtrac.events.schema import ATTRIBUTION, STATUS, decode_event, encode_event
from fgtrac.store.journal import JournalWriter
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import read_entries

TRACE_ID = bytes(range(16))
ROWS = 20


class World:
    """One trace, one or more writers, and a clock that ticks."""

    def __init__(self, folder: Path) -> None:
        self.trace = TraceDir.create(folder / "run.trace")
        self.key = Ed25519PrivateKey.from_private_bytes(bytes(32))
        self.state = folder / "heads" / TRACE_ID.hex()
        self.time = itertools.count(1)
        self.seqs: dict[bytes, int] = {}
        self.journals: dict[bytes, JournalWriter] = {}
        ids = make_ids("public", b"", [preimage("digits", row) for row in range(ROWS)])
        self.ids = sorted(ids[i : i + 32] for i in range(0, len(ids), 32))
        self.block = block_id(b"".join(self.ids))

    @property
    def signer(self) -> Signer:
        """A signer as a fresh process would open it."""
        return Signer(TRACE_ID, self.key, self.state)

    def entry(self, writer: bytes, kind: str, fields: dict[str, Any]) -> bytes:
        """The next entry of a writer."""
        seq = self.seqs.get(writer, 0)
        self.seqs[writer] = seq + 1
        return encode_event({"kind": kind, "time": next(self.time), "writer": writer, "seq": seq, **fields})

    def write(self, *entries: bytes) -> None:
        """Append entries of one writer to its journal."""
        writer = decode_event(entries[0])["writer"]
        if writer not in self.journals:
            self.journals[writer] = JournalWriter(self.trace.journal, writer)
        self.journals[writer].append(entries)

    def close(self, writer: bytes) -> None:
        """The writer's process ends."""
        if writer in self.journals:
            self.journals.pop(writer).close()

    def begin(self, writer: bytes) -> list[bytes]:
        """A run's first entries: run, data set, its samples."""
        run = {
            "trace": TRACE_ID,
            "format": 1,
            "public_key": self.signer.public_key,
            "id_scheme": "public",
            "versions": {},
        }
        samples = {"dataset": "digits", "block": self.block, "part": 0, "parts": 1, "ids": b"".join(self.ids)}
        return [
            self.entry(writer, "run", run),
            self.entry(writer, "dataset", {"name": "digits", "id_scheme": "public", "rows": ROWS}),
            self.entry(writer, "samples", samples),
        ]

    def use(self, writer: bytes, step: int, ordinals: list[int]) -> bytes:
        """One applied batch."""
        one = {"epoch": "<u4", "batch": "<u4", "step": "<u8", "status": "u1", "attribution": "u1", "count": "<u4"}
        values = [step // 4, step % 4, step, STATUS["applied"], ATTRIBUTION["exact"], len(ordinals)]
        columns = {name: np.array([v], dtype=t) for (name, t), v in zip(one.items(), values, strict=True)}
        fields = {
            "loader": 1,
            "optimizer": 1,
            "block": self.block,
            "ordinals": np.array(ordinals, dtype="<u4"),
            **columns,
        }
        return self.entry(writer, "use", fields)

    def metrics(self, writer: bytes, step: int) -> bytes:
        """One small entry."""
        return self.entry(writer, "metrics", {"step": step, "values": {"loss": step / 8}})

    def seal(self, *, full: bool) -> SealResult:
        """Seal as a fresh process would."""
        return seal(self.trace, self.signer, full=full, clock=lambda: 10**9)

    def log(self) -> list[bytes]:
        """The sealed entries."""
        head = self.trace.head()
        return [] if head is None else list(read_entries(self.trace, 0, head.size, head.size))

    def kinds(self) -> list[str]:
        """The sealed entries' kinds."""
        return [decode_event(e)["kind"] for e in self.log()]


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[[], World]:
    """Fresh worlds, each in a folder of its own."""
    numbers = itertools.count()

    def make() -> World:
        folder = tmp_path / f"world{next(numbers)}"
        folder.mkdir()
        return World(folder)

    return make


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    """One fresh world."""
    return make_world()
