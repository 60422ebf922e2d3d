"""Fetching the icons with the npm client, once, into the user's cache folder."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fgtrac.demo.graph.icons import LIST, PNG, VERSION, load_icons

WAIT_S = 600
QUIET = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")


class FetchError(OSError):
    """The packages could not be fetched; trying again, or fetching them elsewhere, may help."""


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where the icons are kept: in XDG_CACHE_HOME, else in ~/.cache. ValueError where the user has no home."""
    try:
        folder = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError as error:
        raise ValueError(f"there is no folder to keep the icons in: {error}; name one with --data-dir") from error
    return Path(folder) / "fgtrac" / f"icons-{VERSION}"


def fetch_icons(folder: Path, environment: Mapping[str, str]) -> Path:
    """The folder, with both packages in it: they are fetched where they are not there, whole and in the right version.
    What an
    interrupted fetch leaves is never taken for them.

    `environment` is what npm is started with, so that its registry, proxy and certificates are those of the user.
    FileNotFoundError where there is no npm, FetchError where it failed.
    """
    if is_complete(folder):
        return folder
    elsewhere = f"or fetch {LIST}@{VERSION} and {PNG}@{VERSION} elsewhere and name their folder with --data-dir"
    npm = shutil.which("npm", path=environment.get("PATH"))
    if npm is None:
        raise FileNotFoundError(f"the icons are fetched with npm, which is not on PATH; install Node.js, {elsewhere}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=folder.name + ".") as beside:
        fresh = Path(beside) / "icons"
        command = [npm, "install", "--prefix", str(fresh), *QUIET, f"{LIST}@{VERSION}", f"{PNG}@{VERSION}"]
        try:
            done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=WAIT_S)
        except subprocess.TimeoutExpired as error:
            raise FetchError(f"npm did not fetch the icons in {WAIT_S} s; try again, {elsewhere}") from error
        if done.returncode or not is_complete(fresh):
            said = " ".join(done.stderr.split())[:300] or f"exit code {done.returncode}"
            raise FetchError(f"npm could not fetch the icons ({said}); try again, {elsewhere}")
        if folder.exists():
            folder.rename(Path(beside) / "unfit")
        fresh.rename(folder)
    return folder


def is_complete(folder: Path) -> bool:
    """Whether both packages are there in the right version, with the drawing of every icon."""
    try:
        load_icons(folder)
    except (FileNotFoundError, ValueError):
        return False
    return True
