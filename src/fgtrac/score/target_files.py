"""The file of a target that is no sample of the trace: its gradients at each state, so that its scores can be computed
again. It holds no names.

    artifacts/targets/DIGEST8.safetensors    tensors STEP-DIGEST8/LAYER/gradients, or .../inputs and .../deltas
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.score.factor_files import State
from fgtrac.score.gradients import Floats, Gradients, Layer
from fgtrac.store.tensor_files import TensorFile, encode_tensors

FOLDER = "artifacts/targets"
FORMAT = "fgtrac target 1"


def target_path(data: bytes) -> str:
    """Where a target's file goes."""
    return f"{FOLDER}/{hashlib.sha256(data).hexdigest()[:8]}.safetensors"


def encode_target(states: Sequence[State], gradients: Sequence[Sequence[Gradients]]) -> bytes:
    """The file of one target: for each state a `Gradients` of one row for each layer; float32."""
    tensors: dict[str, NDArray[Any]] = {}
    for state, layers in zip(states, gradients, strict=True):
        for g in layers:
            for name, values in _columns(g).items():
                tensors[f"{_front(state)}/{g.layer.name}/{name}"] = values.astype(np.float32, copy=False)
    said = json.dumps([g.layer.as_json() for g in gradients[0]], separators=(",", ":"))
    return b"".join(encode_tensors(tensors, {"format": FORMAT, "layers": said}))


def target_of(file: TensorFile, state: State, layers: Sequence[Layer]) -> tuple[Gradients, ...]:
    """The target's gradients at a state, one row for each layer. FormatError where the file has them not."""
    said = json.dumps([layer.as_json() for layer in layers], separators=(",", ":"))
    if file.metadata != {"format": FORMAT, "layers": said}:
        raise FormatError(f"it is no {FORMAT!r} of the layers {', '.join(layer.name for layer in layers):.80}")
    return tuple(_one(file, state, layer) for layer in layers)


def _one(file: TensorFile, state: State, layer: Layer) -> Gradients:
    found: dict[str, Floats] = {}
    for name, width in (("inputs", layer.d_in), ("deltas", layer.d_out), ("gradients", layer.size)):
        tensor = file.tensors.get(f"{_front(state)}/{layer.name}/{name}")
        if tensor is not None:
            if tensor.type != "F32" or tensor.array.shape != (1, width):
                raise FormatError(f"the {name} of layer {layer.name!r:.60} are not 1 x {width} of F32")
            found["dense" if name == "gradients" else name] = tensor.float32()
    if set(found) not in ({"dense"}, {"inputs", "deltas"}) or ("inputs" in found and layer.form != "factored"):
        raise FormatError(f"it has no gradient of layer {layer.name!r:.60} at step {state.step}")
    return Gradients(layer, **found)


def _columns(g: Gradients) -> dict[str, Floats]:
    columns = {"inputs": g.inputs, "deltas": g.deltas, "gradients": g.dense}
    return {name: values for name, values in columns.items() if values is not None}


def _front(state: State) -> str:
    return f"{state.step:08d}-{state.digest.hex()[:8]}"
