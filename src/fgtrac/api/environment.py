"""What the `run` entry says: which code, which libraries, which configuration."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgtrac.events.schema import encode_event

FORMAT = 1
LIBRARIES = ("fgtrac", "numpy", "torch", "safetensors", "cryptography")


def library_versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that shape a run."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # not installed: then it did not shape the run
    return versions


def git_state(folder: Path) -> dict[str, Any]:
    """`git_commit` and `git_dirty` of the checkout that `folder` lies in; empty where there is none."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return {}  # no git, no checkout, or no commit yet: the entry says nothing of a commit
    return {"git_commit": commit, "git_dirty": bool(changed)}


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def describe_run(trace_id: bytes, ids: str, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The `run` entry's fields, keys as zeros for now. ValueError for what does not fit, before there is any file."""
    fields: dict[str, Any] = {
        "trace": trace_id,
        "format": FORMAT,
        "public_key": bytes(32),
        "id_scheme": ids,
        "versions": library_versions(),
        **git_state(Path.cwd()),
    }
    if ids == "keyed":
        fields["key_commitment"] = bytes(32)
    if config is not None:
        fields["config"] = dict(config)
    try:
        encode_event({"kind": "run", "time": time.time_ns(), "writer": bytes(16), "seq": 0, **fields})
    except (TypeError, ValueError) as error:
        raise ValueError(f"config cannot be recorded: {error}") from error
    return fields
