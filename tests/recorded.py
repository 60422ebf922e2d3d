"""Small traces with factor files and recorded contributions, made by hand and without torch; what is true of them is
computed from whole gradients in float64."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.identity import block_id, public_id
from fgtrac.score.factor_files import (
    Rows,
    ShardHead,
    State,
    encode_losses,
    encode_rows,
    encode_shard,
    gradients_of,
    losses_path,
    rows_path,
    shard_path,
)
from fgtrac.score.gradients import Gradients, Layer
from fgtrac.score.methods import Method
from fgtrac.store import durable
from fgtrac.store.tensor_files import parse_tensors
from traces import Made, Writing, start_trace

LAYER = Layer("fc", "factored", 5, 3, True)
CONVOLUTION = Layer("conv", "dense", 4, 2, False)
TRAIN, VALIDATION = 40, 9
RATES = {3: 0.1, 6: 0.05}
Floats = NDArray[np.float64]
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Where a test lies while a trace is recorded: `say` may change an entry's fields or leave the entry out (None),
    `put` the bytes of a file."""

    say: Callable[[str, dict[str, Any]], dict[str, Any] | None] = lambda kind, fields: fields
    put: Callable[[str, bytes], bytes] = lambda path, data: data


HONEST = Hooks()


class Scored:
    """A trace at folder/run.trace with two kept states, their factors, and contributions toward the validation
    samples by some methods. Training samples come from two blocks; `shared` of them are validation samples too, with
    other factors."""

    def __init__(
        self,
        folder: Path,
        *methods: str,
        layers: tuple[Layer, ...] = (LAYER,),
        hooks: Hooks = HONEST,
        shared: int = 0,
    ) -> None:
        self.made: Made
        self.writing: Writing
        self.made, self.writing = start_trace(folder, samples=TRAIN + VALIDATION)
        self.layers = layers
        self.hooks = hooks
        self.extra = sorted(public_id(b"extra %d" % n) for n in range(6))
        self.block, self.second = self.writing.block, block_id(b"".join(self.extra))
        self._register_second()
        ordinals = self.writing.placement.ordinals
        mine = np.sort(ordinals[:TRAIN])
        self.train = Rows(
            (self.block, self.second),
            np.concatenate([mine, np.arange(6, dtype=np.uint32)]),
            np.repeat(np.array([0, 1], np.uint16), [TRAIN, 6]),
        )
        self.validation = Rows((self.block,), np.sort(ordinals[TRAIN - shared :]))
        self.states: list[State] = []
        self.gradients: dict[tuple[int, str], tuple[Gradients, ...]] = {}
        for step in RATES:
            self.checkpoint(step)
            for words in methods:
                self.contribute(step, words)

    def seal(self) -> Made:
        """End and seal the trace."""
        self.writing.end()
        self.made.seal()
        return self.made

    def say(self, kind: str, fields: dict[str, Any]) -> tuple[bytes, int]:
        """Record an entry, unless the hooks say otherwise."""
        told = self.hooks.say(kind, fields)
        return (b"", 0) if told is None else self.writing.recorder.record(kind, told)

    def put(self, path: str, data: bytes) -> None:
        """A file and the entry that names it."""
        data = self.hooks.put(path, data)
        durable.write_file(self.made.trace.path / path, data, sync=False)
        fields = {"path": path, "sha256": hashlib.sha256(data).digest(), "size": len(data), "about": "factors"}
        self.say("artifact", {**fields, "media_type": "application/vnd.safetensors"})

    def checkpoint(self, step: int) -> None:
        """A kept checkpoint and its factors."""
        digest = hashlib.sha256(b"state %d" % step).digest()
        fields = {"step": step, "kept": True, "rule": "kept: all are", "digest": digest}
        ref = self.say("checkpoint", {**fields, "learning_rates": np.array([RATES[step], 1.0])})
        state = State(ref, step, digest)
        self.states.append(state)
        for role, rows in (("train", self.train), ("validation", self.validation)):
            data = encode_rows(rows, role)
            if len(self.states) == 1:
                self.put(rows_path(role, data), data)
            self._factors(state, role, len(rows), hashlib.sha256(data).digest())

    def _factors(self, state: State, role: str, n: int, digest: bytes) -> None:
        whole = draw(self.layers, n, f"{state.step} {role}")
        rates = (RATES[state.step],) * len(self.layers)
        kept: list[list[Gradients]] = []
        for part, start in enumerate(range(0, n, 16)):
            stop = min(n, start + 16)
            head = ShardHead(state.digest, state.step, role, start, stop, n, digest, self.layers, rates)
            data = encode_shard(head, [g.rows(slice(start, stop)) for g in whole], "float16")
            kept.append(list(gradients_of(parse_tensors(data), head, slice(None))))
            self.put(shard_path(head, part), data)
            self.put(losses_path(shard_path(head, part)), encode_losses(np.ones(stop - start, np.float32)))
        self.gradients[state.step, role] = tuple(
            Gradients(layer, dense=np.concatenate([shard[i].whole() for shard in kept]))
            for i, layer in enumerate(self.layers)
        )

    def contribute(self, step: int, words: str, target: str = "validation", toward: Floats | None = None) -> None:
        """Entries with every training sample's share: one for each block."""
        (state,) = [s for s in self.states if s.step == step]
        method = parse(words)
        scores = self.truth(step, method, toward).astype("<f4")
        parameters: dict[str, Any] = {
            "factors": state.folder,
            "layers": [layer.name for layer in self.layers],
            "learning_rates": [RATES[step]] * len(self.layers),
        }
        parameters |= {"damping": method.damped_by} if method.damped_by else {}
        said = {"checkpoint": list(state.ref), "step": step, "target": target, "method": words}
        for number, block in enumerate(self.train.blocks):
            here = np.flatnonzero(self.train.which == number)
            columns = {"block": block, "ordinals": self.train.ordinals[here], "scores": scores[here]}
            self.say("contribution", {**said, "parameters": parameters, **columns})

    def truth(self, step: int, method: Method, toward: Floats | None = None) -> Floats:
        """(n,) the shares of one state toward the mean validation loss (or other gradients), from whole gradients."""
        train = self._whole(step, "train")
        target = self._whole(step, "validation").mean(axis=0) if toward is None else toward
        if method.name == "tracin":
            return RATES[step] * train @ target
        if method.name == "tracin-cos":
            lengths = np.linalg.norm(train, axis=1) * np.linalg.norm(target)
            return RATES[step] * train @ target / lengths
        out, at = np.zeros(len(train)), 0
        for layer in self.layers:
            some = slice(at, at := at + layer.size)
            rows, p = train[:, some], layer.size
            matrix = rows.T @ rows / len(rows)
            damped = matrix + method.damped_by * np.trace(matrix) / p * np.eye(p)
            out += rows @ np.linalg.solve(damped, target[some])
        return out

    def sample(self, step: int, role: str, row: int) -> Floats:
        """One sample's whole gradient over all layers."""
        return self._whole(step, role)[row]

    def _whole(self, step: int, role: str) -> Floats:
        return np.concatenate([g.whole().astype(np.float64) for g in self.gradients[step, role]], axis=1)

    def _register_second(self) -> None:
        self.say("dataset", {"name": "extra", "id_scheme": "public", "rows": 6})
        fields = {"dataset": "extra", "block": self.second, "part": 0, "parts": 1, "ids": b"".join(self.extra)}
        self.say("samples", fields)


def draw(layers: tuple[Layer, ...], n: int, seed: str) -> tuple[Gradients, ...]:
    """Gradients with a common direction, as trained models have them."""
    generator = np.random.default_rng(list(seed.encode()))
    return tuple(
        Gradients(
            layer, **{("dense" if name == "gradients" else name): _numbers(generator, n, width) for name, width in
                      layer.columns.items()}
        )
        for layer in layers
    )  # fmt: skip


def _numbers(generator: np.random.Generator, n: int, width: int) -> NDArray[np.float32]:
    return (generator.standard_normal((n, width)) + generator.standard_normal(width)).astype(np.float32)


def parse(words: str) -> Method:
    """The method of its words, read without the code that is tested."""
    name, *damping = words.split(" ")
    return Method(name, float(damping[0]) if damping else None)
