"""Files for other tools: one that is there is replaced only if asked for, and none is ever seen half written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fgtrac.store import durable


def check_place(out: Path, *, replace: bool) -> None:
    """FileNotFoundError where there is no folder for it, FileExistsError where the file is there, unless `replace`;
    ValueError for a folder, and for a place in a trace."""
    check_outside(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder; name a file in it")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} into")
    if out.exists() and not replace:
        raise FileExistsError(f"{out} is there already; name another place, or replace it with --force")


def check_outside(out: Path) -> None:
    """ValueError for a place inside a trace, which is evidence and gets no other files."""
    place = out.resolve()
    for folder in (place, *place.parents):
        if folder.suffix == ".trace" or (folder / "tile" / "entries").is_dir():
            raise ValueError(f"{out} lies in the trace {folder}; name a place outside of it")


def write_export(out: Path, data: bytes | Iterable[bytes], *, replace: bool) -> None:
    """Put a whole file in place. Raises as `check_place`, and OSError where the disk refuses."""
    check_place(out, replace=replace)
    durable.write_file(out, data)
