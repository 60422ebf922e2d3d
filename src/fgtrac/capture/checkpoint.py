"""Model states: the canonical bytes of a state dict, and putting one back into a model; the validation loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fgtrac.errors import FormatError, ScoreError

Model = torch.nn.Module | Mapping[str, Any]  # or named arrays, of whatever library, in maps that may be nested


def state_bytes(model: Model) -> bytes:
    """The safetensors file of every tensor in the model's state dict, by name; copied, so training may go on.

    Byte for byte the same for the same tensors. Anything in the state that is no tensor is left out. TypeError for a
    named array that is none.
    """
    named = dict(_arrays(model)) if isinstance(model, Mapping) else model.state_dict()
    tensors = {n: t for n, t in named.items() if isinstance(t, torch.Tensor)}
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())})


def _arrays(named: Mapping[str, Any], front: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in named.items():
        if isinstance(value, Mapping):
            yield from _arrays(value, f"{front}{name}.")
            continue
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"checkpoint() got {front}{name} of {array.dtype}, which is no array of numbers")
        yield f"{front}{name}", torch.from_numpy(np.array(array))  # a copy: JAX's arrays are read-only


def load_state(model: torch.nn.Module, data: bytes, what: str) -> None:
    """Put the tensors that `state_bytes` wrote into a model. ScoreError, naming the first tensor that differs and
    `what` it was to be loaded from, for a model of another architecture; FormatError for bytes that are no state."""
    try:
        saved = load(data)
    except SafetensorError as error:
        raise FormatError(f"{what} is no safetensors file: {error}") from error
    have = {n: t for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    for name in sorted(saved.keys() | have.keys()):
        shapes = [tuple(t[name].shape) if name in t else None for t in (saved, have)]
        if shapes[0] != shapes[1]:
            there, here = ("no such tensor" if s is None else f"shape {s}" for s in shapes)
            raise ScoreError(
                f"{what} is of another architecture: {name!r} has {there} there and {here} in the model; "
                "pass the model that was trained"
            )
    model.load_state_dict(saved, strict=False)  # what is no tensor was left out, and stays as it is


def loss_of(value: Any) -> float | None:
    """A validation loss as a float; a one-element tensor is read. ValueError for NaN or infinity."""
    if value is None:
        return None
    loss = float(value)
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise ValueError(f"val_loss is {loss}; give a finite number, or None where there is none")
    return loss
