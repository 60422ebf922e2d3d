"""A sealed trace with factors in it, made without torch: a softmax regression at three states of its training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fgtrac.commit.signer import Signer
from fgtrac.events.codec import encode
from fgtrac.events.identity import block_id, key_commitment, make_ids, preimage
from fgtrac.score import factor_files as files
from fgtrac.score.factor_files import Rows, ShardHead, State
from fgtrac.score.gradients import Gradients, Layer
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from traces import TRACE_ID, Made, Writing

LAYER = Layer("output", "factored", 6, 4, True)
RATES = (0.1, 0.2, 0.05)
PARTS = {"train": (0, 300), "validation": (300, 340), "test": (340, 360)}  # rows of the data set `digits`
EXTRA = 40  # rows of the data set `extra`, all of them for training
FLIPPED = 30  # the first training rows of `digits` have wrong labels


@dataclass(frozen=True, slots=True)
class Problem:
    """The trace, its samples' names by role in the order of the factors' rows, and all gradients by (state, role)."""

    made: Made
    names: dict[str, list[str]]
    labels: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    gradients: dict[tuple[int, str], Gradients]
    losses: dict[tuple[int, str], np.ndarray]

    @property
    def path(self) -> Path:
        return self.made.trace.path

    @property
    def key(self) -> Path:
        """The signing key's file."""
        return self.path.with_name("key.pem")

    def matrix(self, role: str, *, k: int | None = None) -> np.ndarray:
        """(train rows, rows of a role) by tracin, in float64 from whole gradients; at one state, or their sum."""
        whole = {key: g.whole().astype(np.float64) for key, g in self.gradients.items()}
        states = range(len(RATES)) if k is None else [k]
        return sum(RATES[i] * whole[i, "train"] @ whole[i, role].T for i in states)


def scored_trace(
    folder: Path,
    *,
    vault: bool = True,
    seed: int = 0,
    roles: tuple[str, ...] = tuple(PARTS),
    unscored: int = 0,
    extra: int = EXTRA,
    shuffled: bool = False,
    losses: bool = True,
    past: int = 0,
    trace_id: bytes = TRACE_ID,
    secret: bytes = b"",
) -> Problem:
    """Factors of `roles` in shards of 128 rows; `unscored` more rows of `digits` are registered and have no factors.
    Data sets `digits` and `extra`. With a secret, ids are keyed; otherwise, with a vault, row n is of subject n % 5."""
    signer = Signer(trace_id, Ed25519PrivateKey.from_private_bytes(bytes(32)), folder / "heads" / trace_id.hex())
    scheme, counts = "keyed" if secret else "public", {"digits": max(b for _, b in PARTS.values()) + unscored}
    counts |= {"extra": extra} if extra else {}
    ids = {s: split(make_ids(scheme, secret, [preimage(s, n) for n in range(count)])) for s, count in counts.items()}
    made = Made(TraceDir.create(folder / "run.trace"), signer, tuple(ids["digits"]))
    writing = Writing(made, bytes((1,)) * 16)
    run = {"trace": trace_id, "format": 1, "public_key": signer.public_key, "id_scheme": scheme}
    run |= {"key_commitment": key_commitment(secret)} if secret else {}
    writing.recorder.record("run", run | {"versions": {"fgtrac": "0"}})
    described = "subject" if vault and not secret else scheme
    blocks = {name: register(writing, name, mine, described) for name, mine in ids.items()}
    names = {role: [f"digits:{n}" for n in range(*PARTS[role])] for role in roles}
    names["train"] += [f"extra:{n}" for n in range(extra)]
    if shuffled:
        for some in names.values():
            np.random.default_rng(5).shuffle(some)
    x, _true, told = data(names, seed)
    rows_data = {role: write_rows(writing, role, names[role], blocks, told[role], past) for role in roles}
    gradients, found = {}, {}
    for k, weights in enumerate(states_of(x["train"], told["train"])):
        state = write_state(writing, k, weights)
        for role in roles:
            g, loss = gradients_of(weights, x[role], told[role])
            gradients[k, role], found[k, role] = g, loss
            write_factors(writing, state, k, role, rows_data[role], g, loss if losses else None)
    writing.end()
    made.seal()
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    durable.write_file(folder / "key.pem", pem, mode=0o600)
    if vault:
        keep = Vault.create(folder / "run.vault", trace_id)
        keep.put_names((i, name, encode(n), None) for name, mine in ids.items() for n, i in enumerate(mine))
        keep.close()
    return Problem(made, names, told, x, gradients, found)


def data(
    names: dict[str, list[str]], seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs in four clouds, true labels, and the labels as the data set tells them."""
    draw = np.random.default_rng(seed)
    centres = 2.0 * draw.standard_normal((4, LAYER.d_in))
    true = {role: draw.integers(0, 4, len(some)) for role, some in names.items()}
    x = {role: (centres[y] + draw.standard_normal((len(y), LAYER.d_in))).astype(np.float32) for role, y in true.items()}
    told = {role: y.copy() for role, y in true.items()}
    told["train"][:FLIPPED] = (told["train"][:FLIPPED] + 1) % 4
    return x, true, told


def states_of(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """(4, 7) weights with the bias last, after 5, 10 and 15 steps of gradient descent."""
    weights, found = np.zeros((4, LAYER.d_in + 1), dtype=np.float32), []
    for step in range(1, 16):
        g, _loss = gradients_of(weights, x, y)
        weights = weights - 0.5 * g.whole().mean(axis=0).reshape(weights.shape)
        if step % 5 == 0:
            found.append(weights)
    return found


def gradients_of(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[Gradients, np.ndarray]:
    """Of the cross-entropy of each sample; and its value."""
    logits = x @ weights[:, :-1].T + weights[:, -1]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    losses = -np.log(p[np.arange(len(y)), y])
    return Gradients(LAYER, x, (p - np.eye(4)[y]).astype(np.float32)), losses.astype(np.float32)


def register(writing: Writing, name: str, ids: list[bytes], scheme: str) -> tuple[bytes, dict[str, int]]:
    """A data set with contents, by its scheme with subjects too; its block, and the ordinal of each sample's name."""
    place = {sample: row for row, sample in enumerate(ids)}
    ordered = sorted(ids)
    block = block_id(b"".join(ordered))
    writing.recorder.record("dataset", {"name": name, "id_scheme": scheme, "rows": len(ids)})
    subjects = b"".join(hashlib.sha256(b"subject %d" % (place[i] % 5)).digest() for i in ordered)
    contents = b"".join(hashlib.sha256(b"%s %d" % (name.encode(), place[i] // 2)).digest() for i in ordered)
    fields = {"dataset": name, "block": block, "part": 0, "parts": 1, "ids": b"".join(ordered)}
    columns = {"contents": contents} | ({"subjects": subjects} if scheme == "subject" else {})
    writing.recorder.record("samples", fields | columns)
    return block, {f"{name}:{place[i]}": ordinal for ordinal, i in enumerate(ordered)}


def write_rows(
    writing: Writing, role: str, names: list[str], blocks: dict[str, Any], labels: np.ndarray, past: int
) -> bytes:
    """The rows file of a role, and the roles entries; its SHA-256."""
    sets = [name.partition(":")[0] for name in names]
    used = [name for name in blocks if name in sets]
    ordinals = np.array([blocks[s][1][n] for s, n in zip(sets, names, strict=True)], dtype=np.uint32)
    which = np.array([used.index(s) for s in sets], dtype=np.uint16) if len(used) > 1 else None
    for name in used:
        mine = np.array([s == name for s in sets])
        writing.recorder.record("roles", {"role": role, "block": blocks[name][0], "ordinals": ordinals[mine]})
    ordinals[7] += past  # a row of the factors that is no sample of the block
    rows = Rows(tuple(blocks[name][0] for name in used), ordinals, which, labels.astype(np.int32))
    encoded = files.encode_rows(rows, role)
    return write_file(writing, files.rows_path(role, encoded), encoded)


def write_state(writing: Writing, k: int, weights: np.ndarray) -> State:
    """A kept checkpoint; its state is no real one, since nothing here needs a model."""
    digest, step, loss = hashlib.sha256(weights.tobytes()).digest(), 10 * (k + 1), 1.0 / (k + 1)
    rates = {"learning_rates": np.array([RATES[k]])}
    fields = {"step": step, "digest": digest, "kept": True, "rule": "kept: all", "val_loss": loss, **rates}
    return State(writing.recorder.record("checkpoint", fields), step, digest, loss)


def write_factors(
    writing: Writing, state: State, k: int, role: str, rows: bytes, g: Gradients, losses: np.ndarray | None
) -> None:
    """Shards of 128 rows in float32, and the losses."""
    for part, start in enumerate(range(0, len(g), 128)):
        stop = min(len(g), start + 128)
        head = ShardHead(state.digest, state.step, role, start, stop, len(g), rows, (LAYER,), (RATES[k],))
        path = files.shard_path(head, part)
        write_file(writing, path, files.encode_shard(head, [g.rows(slice(start, stop))], "float32"))
        if losses is not None:
            write_file(writing, files.losses_path(path), files.encode_losses(losses[start:stop]))


def write_file(writing: Writing, path: str, data: bytes) -> bytes:
    """A file of the trace, and the entry that names it; its SHA-256."""
    digest = hashlib.sha256(data).digest()
    durable.write_file(writing.made.trace.path / path, data, sync=False)
    fields = {"path": path, "sha256": digest, "size": len(data), "media_type": "application/vnd.safetensors"}
    writing.recorder.record("artifact", {**fields, "about": "factors"})
    return digest


def split(joined: bytes) -> list[bytes]:
    return [joined[i : i + 32] for i in range(0, len(joined), 32)]
