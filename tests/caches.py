"""Caches of random factors for tests: three states, one or more layers, several shards, no model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from fgtrac.score import factor_files as files
from fgtrac.score.cache import Cache
from fgtrac.score.factor_files import Rows, ShardHead, State
from fgtrac.score.gradients import Gradients, Layer
from fgtrac.store.trace_dir import TraceDir

FACTORED = Layer("output", "factored", 7, 4, True)
DENSE = Layer("conv", "dense", 5, 3, True)
PROJECTED = Layer("attention", "projected", 64, 64, False, k_in=3, k_out=2, seed=1, error=0.4)
RATES = (0.1, 0.03, 0.5)


def random_gradients(layer: Layer, n: int, seed: int) -> Gradients:
    """n random gradients in a layer's form."""
    draw = np.random.default_rng(seed).standard_normal
    columns = {name: draw((n, width)).astype(np.float32) for name, width in layer.columns.items()}
    return Gradients(layer, **{"dense" if name == "gradients" else name: v for name, v in columns.items()})


def make_states(count: int = 3) -> list[State]:
    """States at steps 10, 20, ..."""
    return [
        State((bytes(16), n), 10 * (n + 1), hashlib.sha256(bytes([n])).digest(), 1.0 / (n + 1)) for n in range(count)
    ]


def write_cache(
    folder: Path,
    layers: tuple[Layer, ...] = (FACTORED,),
    *,
    n: int = 500,
    dtype: str = "float32",
    shard: int = 200,
    roles: tuple[str, ...] = ("train", "validation"),
) -> tuple[Cache, dict[tuple[int, str], list[Gradients]]]:
    """A cache and the gradients in it: (state, role) -> one for each layer."""
    artifacts: dict[str, bytes] = {}

    def write(path: str, data: bytes) -> bytes:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        artifacts[path] = hashlib.sha256(data).digest()
        return artifacts[path]

    held: dict[tuple[int, str], list[Gradients]] = {}
    states = make_states()
    for r, role in enumerate(roles):
        total = n if role == "train" else n // 5
        labels = np.arange(total, dtype=np.int32) % 4
        data = files.encode_rows(Rows((bytes([r] * 16),), np.arange(total, dtype=np.uint32), None, labels), role)
        rows = write(files.rows_path(role, data), data)
        for k, state in enumerate(states):
            whole = [random_gradients(layer, total, 1000 * r + 10 * k + i) for i, layer in enumerate(layers)]
            held[k, role] = whole
            losses = np.abs(np.random.default_rng(k).standard_normal(total)).astype(np.float32)
            for part, start in enumerate(range(0, total, shard)):
                stop = min(total, start + shard)
                rates = (RATES[k],) * len(layers)
                head = ShardHead(state.digest, state.step, role, start, stop, total, rows, layers, rates)
                shown = [g.rows(slice(start, stop)) for g in whole]
                write(files.shard_path(head, part), files.encode_shard(head, shown, dtype))
                write(files.losses_path(files.shard_path(head, part)), files.encode_losses(losses[start:stop]))
    return Cache(TraceDir(folder), artifacts, states), held
