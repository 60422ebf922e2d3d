"""One whole example of every kind of entry, with every field that it may have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

NO_STEP = 2**64 - 1
BLOCK, OTHER = bytes(range(16)), bytes(range(16, 32))
DIGEST = bytes(range(32))
IDS = bytes(32) + b"\1" * 32 + b"\xff" * 32
REF = [BLOCK, 7]


def u1(*numbers: int) -> Any:
    return np.array(numbers, dtype="<u1")


def u4(*numbers: int) -> Any:
    return np.array(numbers, dtype="<u4")


def u8(*numbers: int) -> Any:
    return np.array(numbers, dtype="<u8")


def f4(*numbers: float) -> Any:
    return np.array(numbers, dtype="<f4")


FIELDS: dict[str, dict[str, Any]] = {
    "run": {
        "trace": BLOCK, "format": 1, "public_key": DIGEST, "id_scheme": "keyed", "key_commitment": DIGEST,
        "git_commit": "abc", "git_dirty": False, "versions": {"numpy": "2.0"}, "config": {"lr": 0.1, "deep": [1, {}]},
        "config_artifact": "artifacts/config.json",
    },
    "dataset": {
        "name": "digits", "id_scheme": "public", "rows": 3, "keys": "rows", "content": "first tensor", "beside": True,
    },
    "samples": {
        "dataset": "digits", "block": BLOCK, "part": 0, "parts": 1, "ids": IDS, "contents": IDS, "subjects": IDS,
    },
    "roles": {"role": "train", "block": BLOCK, "ordinals": u4(0, 2)},
    "transform": {
        "stage": "crop", "operation": "record", "block": BLOCK, "parameters": {"size": 8}, "code": DIGEST,
        "output": "crops", "kept": u4(0), "dropped": u4(1), "same_as": DIGEST, "child_block": OTHER,
        "parents": u4(0, 0, 2), "children": u4(0, 1, 1), "starts": u4(0, 4, 0), "stops": u4(4, 4, 9),
    },
    "sampler": {
        "loader": 0, "epoch": 0, "sampler": "RandomSampler", "parameters": {"replacement": False}, "state": b"state",
        "state_commitment": DIGEST,
    },
    "use": {
        "loader": 0, "optimizer": 0, "block": BLOCK, "epoch": u4(0, 0), "batch": u4(0, 1), "step": u8(1, NO_STEP),
        "status": u1(1, 2), "attribution": u1(4, 5), "fit": "Ridge", "count": u4(2, 1), "ordinals": u4(0, 2, 1),
        "losses": np.array([0.5, 1, np.nan], dtype="<f2"), "graph": "sampled", "hops": 2, "hop_count": u4(1, 0, 0, 1),
        "hop_ordinals": u4(1, 0),
    },
    "metrics": {"step": 3, "values": {"loss": 0.5, "correct": 3}},
    "attention": {
        "checkpoint": REF, "step": 3, "modalities": ["text", "image"], "block": BLOCK, "ordinals": u4(0),
        "weights": f4(0.25, 0.75),
    },
    "checkpoint": {
        "step": 3, "epoch": 0, "val_loss": 0.5, "learning_rates": np.array([0.1]), "digest": DIGEST, "kept": True,
        "rule": "first",
    },
    "artifact": {
        "path": "artifacts/3.safetensors", "sha256": DIGEST, "size": 10, "media_type": "x/y", "about": "checkpoint",
    },
    "contribution": {
        "checkpoint": REF, "step": 3, "target": "validation", "method": "tracin", "block": BLOCK,
        "ordinals": u4(0, 1), "scores": f4(-1, 1), "parameters": {"layers": ["fc"], "learning_rates": [0.1]},
    },
    "prediction": {
        "checkpoint": REF, "step": 3, "block": BLOCK, "ordinals": u4(0, 1), "outputs": f4(1, 2, 3, 4),
        "losses": f4(0.1, 0.2),
    },
    "resume": {"writers": [REF], "step": 3},
    "join": {"rank": 1, "ranks": 2, "step": 0, "began": REF},
    "leave": {},
    "gap": {"reason": "disk full", "lost_writer": OTHER, "first": 3, "stop": 5, "detail": "ENOSPC"},
    "end": {"writers": [REF, [OTHER, 0]]},
    "key": {"public_key": DIGEST, "old_signature": bytes(64), "new_signature": bytes(64), "revoked": True},
    "erasure": {"pseudonym": DIGEST, "block": BLOCK, "ordinals": u4(1), "artifacts": ["artifacts/x"]},
    "seal": {"root": DIGEST, "leaves": 3, "entries": 9, "counts": {"use": 2}, "epoch_steps": u8(1, NO_STEP)},
}  # fmt: skip


@pytest.fixture(scope="session")
def examples() -> dict[str, dict[str, Any]]:
    """Of each kind the example event; to be copied, not changed."""
    return {
        kind: {"kind": kind, "time": 1_700_000_000_000_000_000, "writer": OTHER, "seq": 5, **fields}
        for kind, fields in FIELDS.items()
    }
