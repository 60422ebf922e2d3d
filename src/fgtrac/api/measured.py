"""What the log says was measured of the scores' fidelity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fgtrac.api.explanation import Fidelity
from fgtrac.errors import FormatError, TamperError
from fgtrac.store.trace_dir import TraceDir

FOLDER = "artifacts/fidelity"
FORMAT = "fgtrac fidelity 1"


def find_fidelity(
    trace: TraceDir, artifacts: Mapping[str, bytes], method: str, steps: tuple[int, ...]
) -> Fidelity | None:
    """The last measurement in the log of this method at these checkpoints. `artifacts` is path -> SHA-256, in the
    order of the log; TamperError where a file is another, FormatError where it says nothing of the kind."""
    for path in reversed(list(artifacts)):
        if path.startswith(FOLDER + "/"):
            said = _read(trace, path, artifacts[path])
            if (said["method"], tuple(said["steps"])) == (method, steps):
                return Fidelity(said["lds"], said["standard_error"], said["subsets"], said["targets"])
    return None


def measured_methods(trace: TraceDir, artifacts: Mapping[str, bytes]) -> dict[str, str]:
    """What was measured of each method, in words, the last measurement of each; files that cannot be read are none."""
    found = {}
    for path, digest in artifacts.items():
        try:
            said = _read(trace, path, digest) if path.startswith(FOLDER + "/") else None
        except (TamperError, FormatError):
            continue
        if said is not None:
            found[said["method"]] = f"LDS {said['lds']:.3f} +- {said['standard_error']:.3f}"
    return found


def _read(trace: TraceDir, path: str, digest: bytes) -> dict[str, Any]:
    try:
        data = trace.read(path)
    except FileNotFoundError as error:
        raise TamperError(f"{error}, which the log names; restore it") from error
    if hashlib.sha256(data).digest() != digest:
        raise TamperError(f"{path} is not the file that the log names; restore it")
    types = {"format": str, "method": str, "steps": list, "lds": float, "standard_error": float, "subsets": int}
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON: {error}") from error
    if not isinstance(said, dict) or set(said) != {*types, "targets"} or said["format"] != FORMAT:
        raise FormatError(f"{path} is no {FORMAT!r}")
    if any(type(said[n]) is not of for n, of in {**types, "targets": int}.items()):
        raise FormatError(f"{path} has values that {FORMAT!r} does not have")
    is_counted = min(said["subsets"], said["targets"]) >= 1
    if not (is_counted and -1 <= said["lds"] <= 1 and 0 <= said["standard_error"] < float("inf")):
        raise FormatError(f"{path} says a rank correlation that none can be")
    return said
