"""A small trace that keeps model files, without torch: what exports are made of and compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fgtrac.store import durable
from traces import DATASET, Made, Writing, start_trace

STATES = (b"state of step 2", b"state of step 4")
HOSTILE = "<script>alert(1)</script>"


def write_key(path: Path, seed: bytes = bytes(32)) -> Path:
    """The key that signs the traces of `traces.py`, as a user's file."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    durable.write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    return path


def trace_with_models(folder: Path, *, samples: int = 20) -> Made:
    """Two epochs of two updates of 8 samples each; a state is kept after each epoch, a third one is displaced; metrics,
    predictions of the last state for the first 5 ordinals, and a stage with a hostile name."""
    made, writing = start_trace(folder, samples=samples, scheme="keyed")
    stage = {"stage": HOSTILE, "operation": "filter", "block": writing.block}
    writing.recorder.record("transform", {**stage, "kept": np.arange(samples - 1, dtype=np.uint32)})
    writing.recorder.record("transform", {**stage, "dropped": np.array([samples - 1], dtype=np.uint32)})
    reference = None
    for epoch, state in enumerate(STATES):
        for half in (0, 8):
            writing.use(list(range(half, half + 8)), epoch=epoch)
            writing.recorder.record("metrics", {"step": writing.step, "values": {"loss": 1.0 / writing.step, "n": 8}})
        writing.artifact(state)
        said = {
            "step": writing.step,
            "epoch": epoch,
            "digest": hashlib.sha256(state).digest(),
            "val_loss": 0.5 - epoch / 4,
        }
        reference = writing.recorder.record("checkpoint", {**said, "kept": True, "rule": "kept: it is lower"})
    other = hashlib.sha256(b"displaced").digest()
    for kept in (True, False):
        said = {"step": writing.step, "digest": other, "kept": kept, "rule": "kept: it is lower" if kept else "dropped"}
        writing.recorder.record("checkpoint", said)
    asked = {"block": writing.block, "ordinals": np.arange(5, dtype=np.uint32)}
    outputs = np.linspace(0, 1, 10).astype("<f4")
    writing.recorder.record("prediction", {"checkpoint": list(reference), "step": 4, **asked, "outputs": outputs})
    writing.end()
    made.seal()
    return made


def resumed_trace(folder: Path) -> tuple[Made, Callable[[], None]]:
    """Four updates with a loss each, states kept at steps 2 and 4, fully sealed; and what goes on from step 2 over the
    same two updates to the same state, of another loss, when it is called, and seals that."""
    made, writing = start_trace(folder)
    state = hashlib.sha256(STATES[1]).digest()

    def train(loss: float) -> None:
        for row in (0, 8):
            writing.use(list(range(row, row + 8)))
            writing.recorder.record("metrics", {"step": writing.step, "values": {"loss": loss * writing.step}})

    def keep(loss: float, digest: bytes = state) -> None:
        said = {"step": writing.step, "digest": digest, "val_loss": loss, "kept": True, "rule": "kept"}
        writing.recorder.record("checkpoint", said)

    def seal() -> None:
        writing.recorder.flush()
        writing.recorder.rotate()
        made.seal()

    def go_on() -> None:
        last = [[writing.recorder.writer, writing.recorder.next_seq - 1]]
        writing.recorder.record("resume", {"writers": last, "step": 2})
        dataset = {"name": DATASET, "id_scheme": "public", "rows": len(made.ids)}
        writing.recorder.record("dataset", dataset)
        writing.step = 2
        train(100.0)
        writing.artifact(STATES[1])
        keep(0.9)
        seal()

    train(1.0)
    keep(0.5, hashlib.sha256(STATES[0]).digest())
    train(1.0)
    keep(0.4)
    seal()
    return made, go_on


def leave_pending(made: Made) -> None:
    """One entry behind the newest full seal."""
    writing = Writing(made, bytes((9,)) * 16)
    writing.recorder.record("metrics", {"step": 1, "values": {"late": 1.0}})
    writing.recorder.flush()


def change_a_use(trace: Path) -> None:
    """One bit of the last `use` entry, which no statement about models reads by itself."""
    bundle = next(path for path in (trace / "tile" / "entries").rglob("*") if path.is_file())
    data = bytearray(bundle.read_bytes())
    data[data.rindex(b"ordinals") + 20] ^= 1
    bundle.write_bytes(data)
