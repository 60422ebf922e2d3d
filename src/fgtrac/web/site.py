"""The traces that the explorer shows: where each lies, opened once for each state of its files, and its verdict."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fgtrac.api.overview import newest_head, overview
from fgtrac.api.read_by_workers import MEMORY
from fgtrac.api.runs import is_trace
from fgtrac.api.trace import Trace, open_trace
from fgtrac.api.trust import trusted_verifier
from fgtrac.errors import FormatError
from fgtrac.store.private_files import check_names_file
from fgtrac.web.asked import NotThereError
from fgtrac.web.beside import Beside, Finding
from fgtrac.web.checking import Checking, Standing
from fgtrac.web.scoring import Scoring

SUFFIX = ".trace"
MAX_OPEN = 16  # traces kept open; of more, those longest unasked are opened again
Stamp = tuple[object, ...]


@dataclass(slots=True)
class _Opened:
    """A trace as it was opened, and the lock of whoever reads it."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    stamp: Stamp = ()
    trace: Trace | None = None


class Site:
    """A trace, or a folder with traces in it; changes nothing on disk. `key` names the key whose signatures count, and
    `engine` and `memory_bytes` how tables are built."""

    def __init__(
        self, place: Path, key: str | None = None, engine: str | None = None, memory_bytes: int = MEMORY
    ) -> None:
        check_names_file(place)
        if not place.exists():
            raise FileNotFoundError(f"there is no trace or folder {place}; name a trace, or a folder with traces in it")
        if not place.is_dir():
            raise FormatError(f"{place} is no folder; name a trace (NAME.trace), or a folder with traces in it")
        if key is not None:
            trusted_verifier(key, bytes(16))  # what is no key is said now, and not on every page
        self.place = place
        self.is_one = is_trace(place)
        self.key, self.engine, self.memory_bytes = key, engine, memory_bytes
        self._opened: dict[str, _Opened] = {}
        self._turn = threading.Lock()
        self._checking = Checking(key)
        self.logs = Beside("fgtrac reads logs")
        self.comparisons = Beside("fgtrac compares")
        self.scoring = Scoring(key)
        self.tables = Scoring(key)

    @property
    def with_key(self) -> tuple[str, ...]:
        """What a command line says of the key whose signatures count here."""
        return () if self.key is None else ("--key", self.key)

    @property
    def only(self) -> str:
        """The name of the one trace, where the site is no folder; else nothing."""
        return self.place.resolve().name.removesuffix(SUFFIX) if self.is_one else ""

    def path_of(self, name: str) -> Path:
        """Where a trace lies. NotThereError where none of that name does, or a link leads out of the folder."""
        none = NotThereError(f"there is no trace {name!r:.200} here; the first page lists those that are")
        if self.is_one:
            if name != self.only:
                raise none
            return self.place
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise none
        path = self.place.joinpath(*parts[:-1], parts[-1] + SUFFIX)
        try:
            root, whole = self.place.resolve(strict=True), path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise none from error
        if not whole.is_relative_to(root) or not whole.is_dir():
            raise none
        return path

    @contextmanager
    def opened(self, name: str, *, anew: bool = False) -> Iterator[Trace]:
        """The trace of that name, as its newest full seal has it, for the caller alone while the block runs. With
        `anew`, for who may keep it long, it is another one than that which others wait for.

        Raises as `path_of` and `fgtrac.open` do.
        """
        path = self.path_of(name)
        if anew:
            yield open_trace(path, key=self.key)
            return
        with self._turn:
            held = self._opened.pop(name, None) or _Opened()
            self._opened[name] = held  # the newest last
            for old in list(self._opened)[:-MAX_OPEN]:
                del self._opened[old]
        with held.lock:
            stamp = _stamp(path)
            if held.trace is None or held.stamp != stamp:
                held.trace, held.stamp = None, ()
                held.trace, held.stamp = open_trace(path, key=self.key), stamp
            yield held.trace

    def standing(self, name: str) -> Standing:
        """How far the check of a trace has come, which begins when this is first asked, and again after a change."""
        return self._checking.standing(self.path_of(name).resolve())

    def state(self, name: str) -> Stamp:
        """What changes with a trace, or with what its vault knows."""
        return _stamp(self.path_of(name))

    def look(self, name: str) -> Standing:
        """The same without a check being begun."""
        return self._checking.look(self.path_of(name).resolve())

    def overview(self, name: str, patience_s: float) -> Finding:
        """What the trace's log tells as of its newest head, as far as it was read within `patience_s`. NotSealedError
        where it has no head yet."""
        path = self.path_of(name)
        head = newest_head(path)
        return self.logs.of(path, head, partial(overview, path, head), patience_s)

    def stop(self) -> None:
        """Begin nothing more beside the pages."""
        for one in (self._checking, self.logs, self.comparisons, self.scoring, self.tables):
            one.stop()


def _stamp(path: Path) -> Stamp:
    """What changes when a trace is sealed, indexed or rebuilt, its journal grows, or its vault is written to."""
    places = [path / "checkpoint", path / "index", path / "journal", path.with_suffix(".vault")]
    for folder in (path / "index", path / "journal"):
        with os.scandir(folder) if folder.is_dir() else _nothing() as entries:
            places += sorted(Path(entry.path) for entry in entries)
    return tuple((str(place), *_identity(place)) for place in places)


def _identity(path: Path) -> tuple[int, ...]:
    try:
        said = path.lstat()
    except OSError:
        return ()
    return said.st_ino, said.st_size, said.st_mtime_ns, said.st_ctime_ns


@contextmanager
def _nothing() -> Iterator[list[os.DirEntry[str]]]:
    yield []
