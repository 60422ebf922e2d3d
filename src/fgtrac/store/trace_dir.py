"""A trace on disk: where everything lies, and reading it."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.store import durable
from fgtrac.store.private_files import check_names_file
from fgtrac.store.random_access import LocalFile, OpenFile
from fgtrac.tlog.note import TreeHead, parse_note, parse_tree_head

ORIGIN_PREFIX = "fgtrac/"
NPY_HEADER_BYTES = 128  # of every array of one or two dimensions, version 1.0
NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00\x76\x00\{'descr': '(?:\|u1|<u8)', 'fortran_order': False, "
    rb"'shape': \((?:0|[1-9][0-9]{0,14}),(?: [1-9][0-9]{0,3})?\), \} *\n"
)
MAX_SMALL_BYTES = 1 << 25  # of notes, tiles and receipts: 256 of the longest entries have 17 MB


class TraceDir:
    """The folder `NAME.trace`. Reads by path relative to it; writes go through `durable`."""

    is_far = False  # each read is a request over a network

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> TraceDir:
        """A new, empty trace. FileExistsError where there is something already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
        trace = cls(path)
        durable.make_folder(trace.journal)
        durable.sync_folder(path.parent)
        return trace

    @classmethod
    def open(cls, path: Path) -> TraceDir:
        """An existing trace. FileNotFoundError where nothing is there, ValueError where that is no name but a URL or a
        key, FormatError for what is no trace."""
        if str(path).startswith("s3:/"):
            raise ValueError(
                "a trace on object storage is only read, and this writes or needs its journal: do it with the trace on "
                "this machine, then fgtrac push"
            )
        check_names_file(path)
        if not path.exists():
            raise FileNotFoundError(f"there is no trace at {path}; name a folder that ends in .trace")
        if not path.is_dir() or not ((path / "checkpoint").is_file() or (path / "journal").is_dir()):
            raise FormatError(f"{path} is no trace: it has neither a checkpoint nor a journal")
        return cls(path)

    @property
    def journal(self) -> Path:
        """The folder of the journal's segments."""
        return self.path / "journal"

    @property
    def vault_path(self) -> Path:
        """Where the vault lies: beside the trace, never inside."""
        return self.path.with_suffix(".vault")

    def read(self, path: str) -> bytes:
        """A file's bytes. FileNotFoundError naming it where there is none, FormatError for a link, a pipe or a device,
        and for notes, tiles and receipts that are longer than any: a stranger's trace must not lead its reader out of
        the folder, keep it waiting, or fill its memory."""
        place = self.plain(path)
        check_size(path, place.stat().st_size)
        return place.read_bytes()

    def pieces(self, path: str, size: int = 1 << 20) -> Iterator[bytes]:
        """A file's bytes, `size` at a time. FileNotFoundError and FormatError as `read`."""
        with self.plain(path).open("rb") as file:
            while piece := file.read(size):
                yield piece

    def names(self) -> list[str]:
        """The path of everything that is no folder, relative, sorted; a link to a folder is named, not followed.
        OSError for a folder that cannot be listed."""
        found = []
        for folder, folders, files in os.walk(self.path, onerror=_raise_but_gone):
            links = [name for name in folders if Path(folder, name).is_symlink()]
            found += [str(Path(folder, name).relative_to(self.path)) for name in files + links]
        return sorted(found)

    def plain(self, path: str) -> Path:
        """Where a plain file lies, for opening it; raises as `read`."""
        try:
            mode = (self.path / path).lstat().st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(f"{self.path} has no file {path}") from error
        if stat.S_ISDIR(mode):
            raise FileNotFoundError(f"{self.path} has no file {path}: it is a folder")
        if not stat.S_ISREG(mode):
            raise FormatError(f"{path} is no plain file (a link, a pipe or a device); a trace has none, so remove it")
        return self.path / path

    def opened(self, path: str, *, scattered: bool = False) -> OpenFile:
        """A plain file, open for reading at any place; `scattered` as in `LocalFile`. Raises as `read`."""
        return LocalFile(self.plain(path), scattered=scattered)

    def expect(self, path: str, start: int, length: int) -> None:
        """These bytes of a file will be read soon: far away, they come now. Raises as `read`."""

    def found_places(self) -> bytes:
        """What a push has left beside a trace far away (`fgtrac.query.found_places`); empty where there is nothing."""
        return b""

    def mapped(self, path: str) -> NDArray[np.generic]:
        """A .npy file, memory-mapped and read-only. FormatError for what is none, otherwise raises as `read`.

        numpy evaluates a header as an expression: only one that fgtrac could have written is given to it.
        """
        file_path = self.plain(path)
        try:
            with file_path.open("rb") as file:
                if NPY_HEADER.fullmatch(file.read(NPY_HEADER_BYTES)) is None:
                    raise FormatError(f"{path} does not begin like a .npy file of fgtrac; fgtrac seal rebuilds it")
            array = np.load(file_path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise FormatError(f"{path} is no .npy file: {error}") from error
        if (size := file_path.stat().st_size) != array.offset + array.nbytes:
            raise FormatError(f"{path} has {size:,} bytes, and its header asks for {array.offset + array.nbytes:,}")
        return array  # type: ignore[no-any-return]

    def head(self) -> TreeHead | None:
        """The newest tree head as it stands, its signature unchecked; None before the first seal."""
        try:
            data = self.read("checkpoint")
        except FileNotFoundError:
            return None
        return parse_tree_head(parse_note(data).text)

    def head_note(self) -> bytes | None:
        """The newest tree head's note as it stands; None where there is none that can be read."""
        try:
            return self.read("checkpoint")
        except (FileNotFoundError, FormatError):
            return None

    def full_seals(self) -> list[int]:
        """The sizes at which an index is kept, ascending."""
        folder = self.path / "index"
        return sorted(int(p.name) for p in folder.iterdir() if is_size(p.name)) if folder.is_dir() else []


def _raise_but_gone(error: OSError) -> None:
    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        raise error


def is_small(path: str) -> bool:
    """Whether a path is that of a note, a tile or a receipt."""
    return path.startswith(("tile/", "receipts/")) or path.rpartition("/")[2] == "checkpoint"


def check_size(path: str, size: int) -> None:
    """FormatError for a note, a tile or a receipt that is longer than any."""
    if is_small(path) and size > MAX_SMALL_BYTES:
        raise FormatError(f"{path} has {size:,} bytes, and the most that one like it has is {MAX_SMALL_BYTES:,}")


def is_size(name: str) -> bool:
    """Whether a name is a log's size in decimal, as index and receipt folders are named."""
    return name.isascii() and name.isdecimal() and len(name) < 20
