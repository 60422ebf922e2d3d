"""Parsers of factors and scores: safetensors files, rows, heads of shards, targets, methods' words, retrainings."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fgtrac.errors import FormatError
from fgtrac.score.factor_files import State, encode_rows, gradients_of, losses_of, parse_head, parse_rows
from fgtrac.score.functions import Function
from fgtrac.score.gradients import Gradients, Layer
from fgtrac.score.methods import parse_method
from fgtrac.score.retrainings import Retrainings
from fgtrac.score.target_files import encode_target, target_of
from fgtrac.store.tensor_files import TensorFile, encode_tensors, parse_tensors
from target import Real, Target, bytes_of, filled, scratch_folder, text_of

_SCRATCH = scratch_folder()
_FOLDER = Path(_SCRATCH.name)
LAYER = Layer("fc", "factored", 3, 2, True)
STATE = State((bytes(16), 1), 3, bytes(range(32)))
ROWS, PARTS = np.arange(8), ("a", "b")
FUNCTION = Function("train.py:again", "00" * 32)


def tensors(data: bytes) -> TensorFile:
    return parse_tensors(data)


def write_tensors(file: TensorFile) -> bytes:
    return b"".join(encode_tensors(file.tensors, file.metadata))


def shard(data: bytes) -> object:
    """A shard's head, its gradients where it has few rows, and losses from the same file."""
    file = parse_tensors(data)
    head = parse_head(file.metadata)
    losses_of(file, head) if "losses" in file.tensors else None
    return gradients_of(file, head, slice(0, 100))


def target_file(data: bytes) -> object:
    return target_of(parse_tensors(data), STATE, (LAYER,))


def target_files(_real: Real) -> Iterator[bytes]:
    numbers = np.arange(5, dtype=np.float32)[None]
    yield encode_target([STATE], [(Gradients(LAYER, inputs=numbers[:, :3], deltas=numbers[:, 3:]),)])
    yield encode_target([STATE], [(Gradients(LAYER, dense=np.ones((1, 8), np.float32)),)])


def retrainings(data: bytes) -> object:
    path = _FOLDER / "x.retrainings"
    path.write_bytes(data)
    return Retrainings(path, FUNCTION, ROWS, PARTS, 0.5, 0)


def finished(_real: Real) -> Iterator[bytes]:
    path = _FOLDER / "seed.retrainings"
    path.unlink(missing_ok=True)
    kept = Retrainings(path, FUNCTION, ROWS, PARTS, 0.5, 0)
    kept.add(0, 1, np.array([0.5, 1.5]))
    kept.add(1, 1, np.array([0.25, 2.5]))
    yield path.read_bytes()


def with_header(text: bytes, rest: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + rest


def worst_tensors() -> Iterator[bytes]:
    """Headers of a megabyte: deep, wide, of many tensors of no bytes, with names and numbers of any length."""
    yield b"\xff" * 8 + bytes(1 << 20)
    yield with_header(filled(b"["))
    yield with_header(filled(b'{"a":'))
    yield with_header(b"[" + filled(b"{},") + b"0]")
    yield with_header(b'{"a":[' + filled(b"[],") + b"0]}")
    yield with_header(b'{"a":' + filled(b"9") + b"}")
    yield with_header(b'{"__metadata__":{' + b",".join(b'"%d":""' % n for n in range(100_000)) + b"}}")
    place = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    yield with_header(b"{" + b",".join(b'"%d":%s' % (n, place) for n in range(18_000)) + b"}")
    one = {"dtype": "F32", "shape": [1 << 47, 1 << 47], "data_offsets": [0, 0]}
    yield with_header(json.dumps({"a": one}).encode(), bytes(1 << 20))
    yield with_header(json.dumps({"a": one | {"shape": [0] + [1 << 47] * 31}}).encode(), bytes(0))
    yield with_header(b'{"a":{"dtype":"U8","shape":[' + filled(b"0,") + b'0],"data_offsets":[0,0]}}')


def worst_shards() -> Iterator[bytes]:
    yield from worst_tensors()
    for name in ("range", "layers", "learning_rates", "digest", "step", "rows"):
        for value in ("9" * (1 << 20), "[" * (1 << 20), "[" + "[]," * (1 << 18) + "0]", "ab" * (1 << 19)):
            words = {"format": "fgtrac factors 1", "digest": "00" * 32, "step": "1", "role": "train"}
            words |= {"range": "[0,0,0]", "rows": "00" * 32, "layers": "[]", "learning_rates": "[]", name: value}
            yield with_header(json.dumps({"__metadata__": words}).encode())


def worst_retrainings() -> Iterator[bytes]:
    yield filled(b"\n")
    yield filled(b"a\t00000000\n")
    for text in (filled(b"["), b"[" + filled(b"[],") + b"0]", filled(b"9")):
        yield b"%s\t%08x\n" % (text, zlib.crc32(text))


TARGETS = [
    Target("safetensors", tensors, lambda r: r.files("artifacts/**/*.safetensors"), write_tensors, is_canonical=False,
           worst=worst_tensors),
    Target("rows of factors", lambda data: parse_rows(parse_tensors(data)),
           lambda r: r.files("artifacts/scoring/rows-*"), lambda rows: encode_rows(rows, "train"), is_canonical=False,
           worst=worst_tensors),
    Target("shard of factors", shard, lambda r: r.files("artifacts/scoring/*/*"), worst=worst_shards),
    Target("target's file", target_file, target_files, worst=worst_tensors),
    Target("method's words", lambda data: parse_method(text_of(data)),
           lambda r: [b"tracin", b"tracin-cos", b"fisher 0.1", b"fisher ggn 0.03", b"ekfac 0.3"],
           lambda method: bytes_of(str(method)), refusals=(ValueError,),
           worst=lambda: [b"fisher " + filled(b"9"), filled(b" "), filled(b"fisher ")]),
    Target("retrainings", retrainings, finished, refusals=(FormatError, ValueError),
           worst=worst_retrainings),
]  # fmt: skip
