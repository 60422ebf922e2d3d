"""Folders for what a long command writes and needs no more when it ends: the user's own, gone afterwards.

    SCRATCH/NAME         held by the process that works there; its work goes on there after it was killed
    SCRATCH/NAME-HEX     that of a second one at the same time, or where NAME is not this user's: nobody takes it up
    .../fgtrac-scratch   in both, the mark that says whose they are: a user's own folder of such a name is left alone

SCRATCH is the folder that the caller names, else `scratch` in the user's cache (`fgtrac.query.view_cache`).
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from fgtrac.errors import EngineError
from fgtrac.query.view_cache import cache_folder
from fgtrac.store import durable
from fgtrac.store.durable import FolderHold

STALE_S = 24 * 3600  # what a killed command left is kept so long
MARK = "fgtrac-scratch"  # sorts before what is written beside it, so it is removed last
_NAME = re.compile(r"(verify|score)-[0-9a-f]{32}(-[0-9a-f]{16})?")


@contextmanager
def scratch_folder(top: Path | None, name: str) -> Iterator[Path]:
    """The folder `name` in `top` (default: in the user's cache), held and for this user alone (0700); removed at the
    end, except where workers were lost or the user stops it: the same command then goes on there.

    OSError where nothing can be written in `top`, ValueError where the user has no home.
    """
    if top is None:
        top = cache_folder() / "scratch"
        top.mkdir(parents=True, exist_ok=True, mode=0o700)
    top = top.absolute()  # workers of other machines are elsewhere
    _remove_stale(top)
    folder, hold = _held(top, name)
    try:
        durable.write_file(folder / MARK, b"files of fgtrac, which removes them again\n")
        yield folder
    except (EngineError, KeyboardInterrupt):
        hold.close()
        raise
    except BaseException:
        durable.remove_folder(folder)
        raise
    else:
        durable.remove_folder(folder)
    finally:
        hold.close()


def check_scratch(top: Path) -> None:
    """That scratch files can be made in a folder which the caller named. FileNotFoundError where there is none,
    ValueError where it is no folder, or one in which this user makes nothing."""
    if not top.exists():
        raise FileNotFoundError(f"there is no folder {top} for scratch files; make it, or name another")
    if not top.is_dir():
        raise ValueError(f"{top} is no folder, and scratch files need one; name another")
    try:
        (probe := top / f"verify-probe-{os.urandom(8).hex()}").mkdir(mode=0o700)
        probe.rmdir()
    except OSError as error:
        raise ValueError(f"nothing can be made in {top} for scratch files ({error}); name another folder") from error


def _held(top: Path, name: str) -> tuple[Path, FolderHold]:
    for folder in (top / name, top / f"{name}-{os.urandom(8).hex()}"):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        said = folder.lstat()
        if said.st_uid != os.geteuid() or not stat.S_ISDIR(said.st_mode) or said.st_mode & 0o077:
            continue  # somebody else may have made it, since its name can be computed
        with suppress(BlockingIOError):
            return folder, FolderHold(folder, alone=True)
    raise OSError(f"{folder} is held by another process; try again")


def _remove_stale(top: Path) -> None:
    """What commands left that were killed, and that nobody took up: known by name and mark, since all else in a folder
    that the caller named is the caller's."""
    for folder in sorted(folder for folder in top.glob("*-*") if _NAME.fullmatch(folder.name)):
        with suppress(OSError):
            said = folder.lstat()
            is_marked = stat.S_ISDIR(said.st_mode) and stat.S_ISREG((folder / MARK).lstat().st_mode)
            if is_marked and said.st_uid == os.geteuid() and said.st_mtime < time.time() - STALE_S:
                with closing(FolderHold(folder, alone=True)):
                    durable.remove_folder(folder)
