"""Where views are kept between queries: in the user's cache, for one full seal at a time, and never in the trace.

    CACHE/views/TRACE-ID/SIZE-ROOT16-FORMAT/VIEW-N.parquet    the pieces of each view, and `manifest.json`, written
                                                              last: the pieces in order with their rows, size and
                                                              SHA-256
    CACHE/views/TRACE-ID/building-SIZE-ROOT16-FORMAT/         views that are being built; put in place by a rename. Of a
                                                              builder that was killed, the next one goes on there
    CACHE/views/TRACE-ID/building-HEX/                        those of a second builder at the same time

CACHE is FGTRAC_CACHE, else `fgtrac` in XDG_CACHE_HOME or ~/.cache. Only the user may read in `views` (0700), and no
name of a vault is there. What is there counts only if it is this user's and nobody else may write to it, and a file
only if it has the digest in its manifest, which is looked at before a process reads it for the first time; else all are
built again. The digests find damage: whoever may write as this user may also write a manifest, and is believed.
Who reads or builds in a folder holds it, so that nobody removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fgtrac.errors import EngineError
from fgtrac.query.view_schema import FORMAT, VIEWS
from fgtrac.store import durable
from fgtrac.store.durable import FolderHold
from fgtrac.tlog.note import TreeHead

MANIFEST, MANIFEST_BYTES = "manifest.json", 1 << 22
TRIES = 10  # while others build, replace and remove the same views
_BUILDING = "building-"


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of all that fgtrac can make again. ValueError where the user has no home."""
    named = environment.get("FGTRAC_CACHE")
    if not named:
        try:
            named = str(Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fgtrac")
        except RuntimeError as error:
            raise ValueError("there is no home folder to keep views in; name a folder in FGTRAC_CACHE") from error
    return Path(named).absolute()


def views_folder(trace_id: bytes) -> Path:
    """Where the views of a trace are kept."""
    return cache_folder() / "views" / trace_id.hex()


Files = Mapping[str, Sequence[Mapping[str, Any]]]  # view -> what is said of each piece


class CachedViews:
    """The views of one full seal on disk, held as long as this lives. A file is checked when it is first asked for, and
    again where it was touched since."""

    def __init__(self, folder: Path, hold: FolderHold, files: Files) -> None:
        self.folder, self.files = folder, files
        self._hold = hold
        self._checked: dict[str, tuple[int, ...]] = {}  # what the system says of a file that was looked at

    def rows(self, view: str) -> int:
        """How many rows a view has."""
        return sum(int(said["rows"]) for said in self.files[view])

    def paths(self, view: str) -> list[Path]:
        """The files of a view, in order. DamagedViewsError where one is not what was built."""
        return [self._checked_path(said) for said in self.files[view]]

    def _checked_path(self, said: Mapping[str, Any]) -> Path:
        path = self.folder / str(said["name"])
        seen = _seen(path)
        if not seen or seen != self._checked.get(path.name):
            if not is_intact(path, said):
                raise DamagedViewsError(f"{path} is not the file that was built")
            self._checked[path.name] = seen
        return path

    def close(self) -> None:
        """Let go of the folder."""
        self._hold.close()

    def __del__(self) -> None:
        self._hold.close()


class DamagedViewsError(Exception):
    """A file of the cache is not what was built; whoever meets this builds the views again."""


def open_views(trace_id: bytes, head: TreeHead, build: Callable[[Path], Files], *, anew: bool = False) -> CachedViews:
    """The views of a full seal: those that are kept, or, `anew` or without them, those that `build` writes into a
    folder, which gives what the manifest says of each. Views of other seals are removed. OSError where the disk
    refuses, ValueError where the cache has a name that SQL takes for a pattern, or others may put folders into it."""
    top = views_folder(trace_id)
    if set(str(top)) & set("*?[]{}\0\n"):
        raise ValueError(f"{str(top)!r:.200} cannot hold views: SQL would read *?[]{{}} in its name as a pattern")
    _make_own(top)
    folder = top / f"{head.size}-{head.root.hex()[:16]}-{FORMAT}"
    for tries in range(TRIES):  # more than one only where somebody puts theirs in place, or removes it, meanwhile
        found = None if anew and not tries else _open(folder, head)
        if found is None:
            _build(folder, head, build)
            found = _open(folder, head)
        if found is not None:
            _tidy(top, folder)
            return found
    raise OSError(f"the views in {folder} were removed again and again while they were opened; try again")


def forget_views(trace_id: bytes) -> None:
    """Remove all views of a trace, also those that somebody reads. OSError where the disk refuses."""
    try:
        folder = views_folder(trace_id)
    except ValueError:
        return  # without a home nothing was ever kept
    aside = folder.with_name(f"{_BUILDING}{os.urandom(8).hex()}")  # of whoever builds there meanwhile, too
    with suppress(FileNotFoundError):
        durable.rename(folder, aside)
        durable.remove_folder(aside)


def _open(folder: Path, head: TreeHead) -> CachedViews | None:
    """The views in a folder, None where they are not there or not this user's alone, or their manifest is none or
    another seal's."""
    if not (_is_ours(folder) and _is_ours(folder / MANIFEST)):
        return None
    try:
        hold = FolderHold(folder, alone=False)
    except (FileNotFoundError, NotADirectoryError, BlockingIOError):
        return None
    files = _read_manifest(folder, head)
    if files is None or not all(_is_ours(folder / said["name"]) for pieces in files.values() for said in pieces):
        hold.close()
        return None
    return CachedViews(folder, hold, files)


def _read_manifest(folder: Path, head: TreeHead) -> Files | None:
    """What the manifest says of each piece; None where it is none, another seal's, or files have other sizes."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            said = json.loads(file.read(MANIFEST_BYTES))
        files = {view: list(map(dict, said["files"][view])) for view in VIEWS}
        for view, pieces in files.items():
            is_typed = all(type(known["rows"]) is int and type(known["sha256"]) is str for known in pieces)
            is_named = all(re.fullmatch(rf"{view}-[0-9]{{1,9}}\.parquet", known["name"]) for known in pieces)
            if not (pieces and is_typed and is_named):
                return None
            if any(known["size"] != (folder / known["name"]).stat().st_size for known in pieces):
                return None
        return files if said["head"] == _mark(head) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # whatever else may stand in a file
        return None


def _build(folder: Path, head: TreeHead, build: Callable[[Path], Files]) -> None:
    """Build into a folder of our own and put it in place of whatever is there. Where workers are lost, or the user
    stops it, what is done stays, for whoever asks again."""
    new, hold = _own_folder(folder.with_name(_BUILDING + folder.name))
    try:
        files = build(new)
        manifest = {"head": _mark(head), "files": files}
        durable.write_file(new / MANIFEST, json.dumps(manifest).encode(), mode=0o600)
        _replace(new, folder)
    except (EngineError, KeyboardInterrupt):
        raise
    except BaseException:
        durable.remove_folder(new)
        raise
    finally:
        hold.close()


def _make_own(top: Path) -> None:
    """Make the folder of a trace's views, and close it and the one above to others. What others put there while they
    could is theirs, and not believed. ValueError where they could replace the folders themselves."""
    views = top.parent
    views.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = views.parent.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise ValueError(f"anybody may replace folders in {views.parent}; name another in FGTRAC_CACHE")
    for folder in (views, top):
        folder.mkdir(exist_ok=True, mode=0o700)
        said = folder.lstat()
        if said.st_uid != os.geteuid() or not stat.S_ISDIR(said.st_mode):
            raise ValueError(f"{folder} is not a folder of your own; remove it, or name another place in FGTRAC_CACHE")
        folder.chmod(0o700)


def _is_ours(path: Path) -> bool:
    """Whether this user, and nobody else, may write to a file or folder. A link is none."""
    try:
        said = path.lstat()
    except OSError:
        return False
    is_alone = said.st_uid == os.geteuid() and not said.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return is_alone and not stat.S_ISLNK(said.st_mode)


def _own_folder(wanted: Path) -> tuple[Path, FolderHold]:
    """A folder to build in, held: the wanted one, where an earlier builder may have left what it did; another name
    where somebody builds there now, or it is not ours alone. Again where somebody tidied it away before we held it."""
    new = wanted
    while True:
        with suppress(FileExistsError):
            new.mkdir(mode=0o700)
        with suppress(FileNotFoundError, NotADirectoryError, BlockingIOError):
            if _is_ours(new):
                hold = FolderHold(new, alone=True)
                if new.exists():
                    return new, hold
                hold.close()
                continue
        new = wanted.with_name(_BUILDING + os.urandom(8).hex())


def _replace(new: Path, folder: Path) -> None:
    """Rename a folder; what has its name is set aside. Where somebody else was faster, one of the two stays."""
    for tries in range(TRIES):
        with suppress(FileNotFoundError):
            durable.rename(folder, new.with_name(_BUILDING + os.urandom(8).hex()))
        try:
            durable.rename(new, folder)
            return
        except OSError:  # another builder has put one there in between
            if tries == TRIES - 1:
                raise


def _tidy(top: Path, current: Path) -> None:
    """Remove what other seals or killed builders left, unless somebody holds it."""
    for path in top.iterdir():
        if path == current:
            continue
        with suppress(BlockingIOError, FileNotFoundError, NotADirectoryError, PermissionError):  # of another user, too
            FolderHold(path, alone=True).close()
            durable.remove_folder(path)


def _mark(head: TreeHead) -> dict[str, Any]:
    return {"origin": head.origin, "size": head.size, "root": head.root.hex(), "format": FORMAT}


def _seen(path: Path) -> tuple[int, ...]:
    """Which file lies there, and when it was written last; nothing where there is none."""
    try:
        said = path.stat()
    except OSError:
        return ()
    return said.st_dev, said.st_ino, said.st_size, said.st_mtime_ns, said.st_ctime_ns


def is_intact(path: Path, said: Mapping[str, Any]) -> bool:
    """Whether a file is there and has the SHA-256 that is said of it."""
    try:
        with path.open("rb") as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == said["sha256"])
    except OSError:
        return False
