"""Which code and which libraries a run was made with."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

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
