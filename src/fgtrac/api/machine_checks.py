"""What `fgtrac doctor` says of the machine and the installation, without loading any of what it looks for."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from fgtrac.api.finding import Finding, cannot_tell, fine, note, to_do
from fgtrac.commit.keys import Keyring, default_key_path, public_bytes
from fgtrac.errors import FgtracError
from fgtrac.query.view_cache import cache_folder
from fgtrac.store import durable
from fgtrac.store.disks import IN_MEMORY, file_system, is_network

OLDEST_PYTHON = (3, 11)
TORCH_TESTED = ((2, 6), (2, 13))
LEAST_FREE = 1 << 30  # bytes
EXTRAS: Mapping[str, str] = {  # what each is for; a test holds the names against pyproject.toml
    "torch": "recording and scoring a training",
    "demo": "fgtrac demo cnn",
    "graph": "fgtrac demo graph, and graphs of PyTorch Geometric",
    "evm": "anchoring in a contract, and verifying that",
    "tsa": "time stamps by RFC 3161",
    "web": "fgtrac serve",
    "query": "tables as Arrow, pandas and polars, and fgtrac sql",
    "ui": "fgtrac ui, and reports",
    "prov": "fgtrac export prov",
    "mlflow": "fgtrac.mlflow.log_trace",
    "ray": "--engine ray, and recording under Ray",
    "s3": "traces on object storage",
    "lightning": "the callback for Lightning",
    "transformers": "the callback for transformers' Trainer",
    "accelerate": "following accelerate",
    "skorch": "the callback for skorch",
    "stateful": "torchdata's StatefulDataLoader",
    "webdataset": "WebDataset's streams",
    "tables": "rows of pandas, polars, Arrow, datasets and scikit-learn",
}
_OF_VIEWS = re.compile(r"[0-9a-f]{32}|building-[0-9a-f]{16}")  # query/view_cache.py
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([A-Za-z0-9._-]+)['"]""")
_LEAST = re.compile(r"[>=]=\s*([0-9.]+)")
_RELEASE = re.compile(r"\d+(?:\.\d+)*")


def machine_findings(environment: Mapping[str, str], now: float) -> Iterator[Finding]:
    """Python, fgtrac, the extras, the key, the clock, and the folders that fgtrac writes to. `now` is in seconds since
    1970."""
    yield _python()
    yield from _installation()
    yield from _key(environment)
    yield _clock(now)
    yield from _cache()


# -- the installation -----------------------------------------------------------------------------------------------


def _python() -> Finding:
    words = f"{platform.python_version()} at {sys.executable}, on {platform.system()} {platform.release()}"
    if sys.version_info < OLDEST_PYTHON:
        return to_do("python", words, f"fgtrac asks for {'.'.join(map(str, OLDEST_PYTHON))} or newer: install that")
    if platform.system() != "Linux":
        return cannot_tell("python", f"{words}: fgtrac is tested on Linux alone", "run it on Linux to be sure")
    return fine("python", words)


def _installation() -> Iterator[Finding]:
    import importlib.metadata  # here: it takes email along, and that a socket

    try:
        asked = importlib.metadata.requires("fgtrac") or []
        version = importlib.metadata.version("fgtrac")
    except importlib.metadata.PackageNotFoundError:
        remedy = "install it (pip install fgtrac), so that its requirements are known"
        yield cannot_tell("fgtrac", "it is imported from a folder and not installed", remedy)
        return
    lacking = _lacking(_needed(asked, None))
    if lacking:
        yield to_do("fgtrac", f"{version}, without {', '.join(lacking)}, which it needs", "pip install -U fgtrac")
    else:
        yield fine("fgtrac", version)
    for extra, what in EXTRAS.items():
        yield _extra(extra, what, _needed(asked, extra))
    yield _torch()


def _needed(asked: list[str], extra: str | None) -> dict[str, str]:
    """The distributions that an extra asks for (None: the ones without an extra), also through other extras, and the
    least version of each."""
    found: dict[str, str] = {}
    for line in asked:
        wanted, name = _EXTRA.search(line), _NAME.match(line)
        if name is None or (wanted[1] if wanted else None) != extra:
            continue
        if name[0] == "fgtrac":
            inner = line[line.index("[") + 1 : line.index("]")].split(",")
            for other in inner:
                found |= _needed(asked, other.strip())
        else:
            least = _LEAST.search(line)
            found[name[0]] = least[1] if least else ""
    return found


def _lacking(needed: Mapping[str, str]) -> list[str]:
    """Those that are not there, or older than is asked for."""
    found = []
    for name, least in needed.items():
        version = _version(name)
        if version is None:
            found.append(name)
        elif _numbers(version) < _numbers(least):
            found.append(f"{name} {least} (there is {version})")
    return found


def _numbers(version: str) -> list[int]:
    """The release segment of a version (PEP 440); of none, nothing."""
    release = _RELEASE.match(version)
    return [int(part) for part in release[0].split(".")] if release else []


def _extra(extra: str, what: str, needed: Mapping[str, str]) -> Finding:
    if lacking := _lacking(needed):
        words = f"not there, for want of {', '.join(lacking)}; it is for {what}"
        return note(f"extra {extra}", words, f"pip install 'fgtrac[{extra}]'")
    return fine(f"extra {extra}", f"{', '.join(f'{name} {_version(name)}' for name in needed)}: {what}")


def _version(name: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> Finding:
    version, (oldest, newest) = _version("torch"), TORCH_TESTED
    tested = f"{'.'.join(map(str, oldest))} to {'.'.join(map(str, newest))}"
    if version is None:
        return note("torch", "not installed: this machine reads, verifies and audits", "pip install 'fgtrac[torch]'")
    if oldest <= tuple(_numbers(version)[:2]) <= newest:
        return fine("torch", f"{version}; tested are {tested}")
    words = (
        f"{version}, and tested are {tested}: a recording tries its pairing on three batches, and refuses if it fails"
    )
    return cannot_tell("torch", words, f"install a torch from {tested} to be sure")


# -- the key --------------------------------------------------------------------------------------------------------


def _key(environment: Mapping[str, str]) -> Iterator[Finding]:
    try:
        path = default_key_path(environment)
    except (ValueError, FgtracError) as error:
        yield to_do("key", str(error), "name a file in FGTRAC_KEY")
        return
    named = " (named by FGTRAC_KEY)" if environment.get("FGTRAC_KEY") else ""
    if not path.exists():
        yield note("key", f"none yet at {path}{named}", "the first recording makes one; or fgtrac key new")
        return
    ring = Keyring(path)
    try:
        keys, revoked, begun = list(ring.keys()), ring.revoked(), ring.begun()
    except (OSError, ValueError, FgtracError) as error:
        yield to_do("key", str(error), "mend what it says: nothing is signed or verified with your key until then")
        return
    retired = f", {len(keys) - 1} retired" if len(keys) > 1 else ""
    yield fine("key", f"{keys[0].hex()} in {path}{named}, readable by you alone{retired}")
    if keys[0] in revoked:
        yield to_do("key", f"the present key {keys[0].hex()} is revoked", "fgtrac key rotate TRACE... makes another")
    if begun is not None:
        words = f"a rotation to {public_bytes(begun.key).hex()} was begun and not finished"
        yield to_do("key", words, "fgtrac key rotate finishes it")
    yield from _key_folder(path.parent)


def _key_folder(folder: Path) -> Iterator[Finding]:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        words = f"others may write to {folder} (mode {mode:04o}), where it is kept what was signed"
        yield to_do("key folder", words, f"chmod go-w {folder}")
    elif not os.access(folder, os.W_OK):
        words = f"{folder} cannot be written to, so nothing can be signed"
        yield to_do("key folder", words, f"give yourself the permission: chmod u+w {folder}")
    else:
        yield from folder_findings("key folder", folder)


# -- the clock and the disks ----------------------------------------------------------------------------------------


def _clock(now: float) -> Finding:
    said = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC"
    installed = Path(__file__).stat().st_mtime
    if now < installed - 86400:
        then = f"{datetime.fromtimestamp(installed, UTC):%Y-%m-%d}"
        return to_do(
            "clock", f"{said}, before fgtrac's own files were written ({then})", "set the clock of this machine"
        )
    return fine("clock", f"{said}; no time service was asked, and entries say what this clock says")


def _cache() -> Iterator[Finding]:
    try:
        folder = cache_folder()
    except ValueError as error:
        yield to_do("cache", str(error), "set FGTRAC_CACHE to another folder")
        return
    views = folder / "views"
    kept = [
        path for path in views.glob("*") if _OF_VIEWS.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    ]
    if not kept:
        yield fine("cache", f"no views in {folder}")
        return
    files = [path for top in kept for path in top.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    words = f"{size:,} bytes in {len(files):,} files of views, which are built again when they are asked for"
    yield note("cache", words, f"of {views}, what has a trace's id for a name may go at any time")


def folder_findings(check: str, folder: Path) -> Iterator[Finding]:
    """Of a folder that fgtrac writes to: its file system, the room on it, and whether locks work there."""
    kind, free = file_system(folder), shutil.disk_usage(folder).free
    words = f"{folder} lies on {kind or 'a file system of unknown type'}; {free:,} bytes are free"
    if free < LEAST_FREE:
        yield to_do(check, words, "make room: a full disk ends in a gap, or in an error where strict")
    elif kind is None:
        yield cannot_tell(check, f"{words}: it may be a network's", "look it up with mount; locks are tried below")
    elif is_network(kind):
        words += ": a network's, so locks and what is synced are as good as its server"
        yield note(check, words, "record to a local disk where you can, and copy the trace when it has ended")
    elif kind in IN_MEMORY:
        yield note(check, f"{words}: a restart of the machine empties it", "keep traces on a disk")
    else:
        yield fine(check, words)
    yield _locks(check, folder)


def _locks(check: str, folder: Path) -> Finding:
    try:
        trouble = durable.try_locks(folder)
    except OSError as error:
        words = f"whether locks work in {folder}, since no file can be made there: {error.strerror}"
        return cannot_tell(f"{check}: locks", words, "run it as who may write there")
    if trouble is not None:
        remedy = "use a folder on another file system: seals and journals rest on locks"
        return to_do(f"{check}: locks", f"{folder}: {trouble}", remedy)
    return fine(f"{check}: locks", f"two holders of one file are kept apart in {folder}")
