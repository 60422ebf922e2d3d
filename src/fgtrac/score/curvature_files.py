"""Inverse curvatures in files, one for each model state, so that several processes compute them once.

    curvature-STATE.safetensors     "LAYER/FIELD" -> float64, as it is in memory; the metadata name each layer's kind

They lie in a folder of the user's own that is gone when the answer is there; nothing of them is in a trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from fgtrac.score.curvature import Curvature, Eigen, Exact, Kronecker
from fgtrac.store.tensor_files import encode_tensors, open_tensors


def curvature_path(folder: Path, k: int) -> Path:
    """Where the curvature at state k lies."""
    return folder / f"curvature-{k}.safetensors"


def encode_curvatures(found: Sequence[Curvature]) -> list[bytes]:
    """The file of all layers at a state. TypeError for a curvature that is read off and not computed."""
    tensors, kinds = {}, {}
    for i, one in enumerate(found):
        if not isinstance(one, (Exact, Kronecker, Eigen)):
            raise TypeError(f"{type(one).__name__} is not kept in files")
        kinds[str(i)] = type(one).__name__
        for field in fields(one):
            tensors[f"{i}/{field.name}"] = np.atleast_1d(np.asarray(getattr(one, field.name), dtype=np.float64))
    return encode_tensors(tensors, kinds)


def read_curvatures(folder: Path, k: int) -> tuple[Curvature, ...]:
    """What `encode_curvatures` gave of state k."""
    file, found = open_tensors(curvature_path(folder, k)), list[Curvature]()
    for i in range(len(file.metadata)):
        held = {n.partition("/")[2]: t.array for n, t in file.tensors.items() if n.startswith(f"{i}/")}
        kind = file.metadata[str(i)]
        if kind == "Exact":
            found.append(Exact(held["inverse"]))
        elif kind == "Kronecker":
            found.append(Kronecker(held["deltas"], held["inputs"]))
        else:
            found.append(Eigen(held["rows"], held["columns"], held["inverse"], float(held["mean"][0])))
    return tuple(found)
