"""Tools of a forger of scores: factor files, and other artifacts of a trace, exchanged with all that rests on them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from fgtrac.demo.forge import Key, NothingToForgeError, all_entries, find, put, reseal
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.score.factor_files import FOLDER
from fgtrac.store.tensor_files import Tensor, encode_tensors, parse_tensors
from fgtrac.store.trace_dir import TraceDir


def factor_files(trace: TraceDir, step: int | None = None) -> list[str]:
    """Paths of the files with training samples' factors, at one step or at all. NothingToForgeError where there are
    none."""
    folder = "*" if step is None else f"{step:08d}-*"
    found = sorted(str(p.relative_to(trace.path)) for p in trace.path.glob(f"{FOLDER}/{folder}/train-*.safetensors"))
    if not found:
        raise NothingToForgeError(f"{trace.path} has no factors to lie about; record some with run.score_with(...)")
    return found


def with_other_signs(data: bytes) -> bytes:
    """A factor file with every gradient turned around."""
    file = parse_tensors(data)
    turned = {name: _turned(t) if name.endswith(("/deltas", "/gradients")) else t for name, t in file.tensors.items()}
    return b"".join(encode_tensors(turned, file.metadata))


def _turned(tensor: Tensor) -> Tensor:
    size = tensor.array.itemsize
    bits = tensor.array.view(f"<u{size}") ^ np.array(1 << (8 * size - 1), dtype=f"<u{size}")
    return Tensor(tensor.type, bits.view(tensor.array.dtype))


def put_artifacts(trace: TraceDir, entries: Sequence[bytes], files: Mapping[str, bytes]) -> list[bytes]:
    """Replace files; the entries, those that name them made to fit."""
    for path, data in files.items():
        put(trace, path, data)
    fitted = []
    for entry in entries:
        event = decode_event(entry)
        if event["kind"] == "artifact" and event["path"] in files:
            data = files[event["path"]]
            entry = encode_event(event | {"sha256": hashlib.sha256(data).digest(), "size": len(data)})
        fitted.append(entry)
    return fitted


def invent_factors_and_sign(trace: TraceDir, key: Key) -> None:
    """Turn all gradients of the last scored checkpoint around, and the scores with them, and sign all of it."""
    _number, last = find(trace, "contribution")
    files = {path: with_other_signs(trace.read(path)) for path in factor_files(trace, last["step"])}
    entries = put_artifacts(trace, all_entries(trace), files)
    for number, entry in enumerate(entries):
        event = decode_event(entry)
        if event["kind"] == "contribution" and event["step"] == last["step"]:
            entries[number] = encode_event(event | {"scores": -event["scores"]})
    reseal(trace, entries, key)
