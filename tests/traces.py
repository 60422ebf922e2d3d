"""Small traces made without torch: the real recorder, journal and sequencer, from fixed seeds and a ticking clock."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.capture.recorder import Recorder
from fgtrac.capture.use_entries import Placement
from fgtrac.commit.sequencer import SealResult, last_seqs, seal
from fgtrac.commit.signer import Signer
from fgtrac.events.identity import SECRET_BYTES, block_id, key_commitment, make_ids, preimage
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.store import durable
from fgtrac.store.journal import JournalWriter
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import Verifier

TRACE_ID = bytes(range(16))
SECRET_SEED = bytes(SECRET_BYTES)
DATASET = "digits"


@dataclass(frozen=True, slots=True)
class Made:
    """A trace, who signs it, and the ids of its samples by row."""

    trace: TraceDir
    signer: Signer
    ids: tuple[bytes, ...]

    @property
    def verifier(self) -> Verifier:
        return self.signer.verifier

    def seal(self, *, full: bool = True) -> SealResult:
        """Seal what the journal holds."""
        return seal(self.trace, self.signer, full=full, clock=_clock(10**15))


class Writing:
    """One process's writing into a trace: records what it is told, in order."""

    def __init__(self, made: Made, writer: bytes) -> None:
        self.made = made
        journal = JournalWriter(made.trace.journal, writer)
        self.recorder = Recorder(journal, writer, clock=_clock(writer[0] * 10**9), flush_interval_s=0)
        self.step = 0
        ids = sorted(made.ids)
        place = {sample: ordinal for ordinal, sample in enumerate(ids)}
        self.block = block_id(b"".join(ids))
        ordinals = np.array([place[i] for i in made.ids], dtype=np.uint32)
        self.placement = Placement((self.block,), ordinals, None)
        self._sorted = ids

    def run_entry(self, scheme: str) -> None:
        """The `run` entry."""
        fields: dict[str, Any] = {
            "trace": TRACE_ID,
            "format": 1,
            "public_key": self.made.signer.public_key,
            "id_scheme": scheme,
            "versions": {"fgtrac": "0"},
        }
        if scheme == "keyed":
            fields["key_commitment"] = key_commitment(_secret())
        self.recorder.record("run", fields)

    def register(self, scheme: str, *, parts: int = 1) -> None:
        """The data set, its samples with contents (rows 2 n and 2 n + 1 hold the same bytes), and their roles."""
        ids = self._sorted
        row_of = {sample: row for row, sample in enumerate(self.made.ids)}
        self.recorder.record("dataset", {"name": DATASET, "id_scheme": scheme, "rows": len(ids), "keys": "rows"})
        size = -(-len(ids) // parts)
        cuts = [min(size * p, len(ids)) for p in range(parts + 1)]
        for part, (start, stop) in enumerate(itertools.pairwise(cuts)):
            mine = ids[start:stop]
            contents = b"".join(hashlib.sha256(b"content %d" % (row_of[i] // 2)).digest() for i in mine)
            fields = {"dataset": DATASET, "block": self.block, "part": part, "parts": parts, "ids": b"".join(mine)}
            self.recorder.record("samples", {**fields, "contents": contents})
        everyone = np.arange(len(ids), dtype=np.uint32)
        self.recorder.record("roles", {"role": "train", "block": self.block, "ordinals": everyone})

    def use(self, rows: list[int], *, epoch: int = 0) -> None:
        """One applied batch, as one entry of its own."""
        self.step += 1
        batch = (epoch, self.step - 1, self.step, STATUS["applied"], ATTRIBUTION["exact"])
        self.recorder.use(self.placement, 1, 1, batch, array("I", rows))
        self.recorder.flush()

    def artifact(self, data: bytes) -> str:
        """A file of the trace, and the entry that names it."""
        digest = hashlib.sha256(data).digest()
        name = f"artifacts/checkpoint-{self.step:08d}-{digest.hex()[:8]}.safetensors"
        durable.write_file(self.made.trace.path / name, data)
        fields = {"path": name, "sha256": digest, "size": len(data), "media_type": "application/octet-stream"}
        self.recorder.record("artifact", {**fields, "about": f"model state after {self.step} updates"})
        return name

    def end(self) -> None:
        """The `end` entry, and the journal closed."""
        self.recorder.flush()
        writers = {**last_seqs(self.made.trace), self.recorder.writer: self.recorder.next_seq - 1}
        self.recorder.record("end", {"writers": [list(pair) for pair in sorted(writers.items())]})
        self.recorder.close()


def start_trace(folder: Path, *, samples: int = 20, scheme: str = "public", parts: int = 1) -> tuple[Made, Writing]:
    """A trace at folder/run.trace (its vault beside it, the signer's state in folder/heads), open for writing:
    run, data set, samples and roles are recorded."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    signer = Signer(TRACE_ID, key, folder / "heads" / TRACE_ID.hex())
    secret = _secret() if scheme == "keyed" else b""
    ids = make_ids(scheme, secret, [preimage(DATASET, row) for row in range(samples)])
    made = Made(TraceDir.create(folder / "run.trace"), signer, tuple(ids[i : i + 32] for i in range(0, len(ids), 32)))
    writing = Writing(made, bytes((1,)) * 16)
    writing.run_entry(scheme)
    writing.register(scheme, parts=parts)
    return made, writing


def make_trace(
    folder: Path,
    *,
    samples: int = 20,
    uses: int = 12,
    batch: int = 8,
    scheme: str = "public",
    artifact_bytes: int = 0,
    seals: tuple[int, ...] = (),
    plain: tuple[int, ...] = (),
    parts: int = 1,
    sealed: bool = True,
) -> Made:
    """A finished trace of `uses` batches of one entry each; a full seal follows the use numbers in `seals`, a plain
    one those in `plain`, and with `sealed` a full one the end. The same arguments give the same log, up to what the
    sequencer draws at random for its own entries."""
    made, writing = start_trace(folder, samples=samples, scheme=scheme, parts=parts)
    generator = np.random.default_rng(7)
    for number in range(uses):
        rows = generator.choice(samples, min(batch, samples), replace=False).tolist()
        writing.use(rows, epoch=number * batch // samples)
        if number in seals or number in plain:
            writing.recorder.rotate()
            made.seal(full=number in seals)
    if artifact_bytes:
        writing.artifact(generator.bytes(artifact_bytes))
    writing.end()
    if sealed:
        made.seal()
    return made


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _secret() -> bytes:
    return hashlib.sha256(SECRET_SEED).digest()


def _clock(start: int) -> Any:
    ticks = itertools.count(start)
    return lambda: next(ticks)
