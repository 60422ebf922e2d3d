"""The vault beside the trace: secret keys, and the way back from ids to keys. SQLite, mode 0600, bound to one trace."""

from __future__ import annotations

import functools
import heapq
import itertools
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError, TamperError
from fgtrac.events.codec import encode
from fgtrac.store import durable, row_columns
from fgtrac.store.row_columns import RowColumn

FORMAT, OLDER_FORMAT = "fgtrac vault v2", "fgtrac vault v1"  # which had no table of row columns
_SCHEMA = (
    "CREATE TABLE about (format TEXT NOT NULL, trace BLOB NOT NULL)",
    "CREATE TABLE secrets (scope TEXT PRIMARY KEY, key BLOB NOT NULL)",
    "CREATE TABLE names (id BLOB PRIMARY KEY, dataset TEXT NOT NULL, key BLOB NOT NULL, subject TEXT) WITHOUT ROWID",
    "CREATE TABLE openings (what TEXT PRIMARY KEY, opening BLOB NOT NULL)",
    "CREATE TABLE unfinished (pseudonym BLOB PRIMARY KEY, artifacts TEXT NOT NULL)",
)
_ROW_COLUMNS = (
    "CREATE TABLE row_columns (number INTEGER PRIMARY KEY, dataset TEXT NOT NULL, block BLOB NOT NULL, "
    "scheme TEXT NOT NULL, samples INTEGER NOT NULL, UNIQUE (dataset, block))",
    "CREATE TABLE row_pages (number INTEGER NOT NULL, page INTEGER NOT NULL, rows BLOB NOT NULL, "
    "PRIMARY KEY (number, page))",
)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_REFUSED = (
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
)  # fmt: skip
_NAMES = "SELECT id, dataset, key, subject FROM names"


@dataclass(frozen=True, slots=True)
class Name:
    """What a sample is called: its data set, its key as CBOR, its subject if it has one."""

    id: bytes
    dataset: str
    key: bytes
    subject: str | None


class Vault:
    """One trace's secrets. A vault opened for reading takes no writes, but is repaired where a writer was killed.

    What SQLite refuses is an OSError (a full or read-only disk, another process that holds the vault) or a FormatError
    (a damaged file).
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self._turn = threading.Lock()  # a run's threads share one connection, and so one transaction
        self.path = path

    @classmethod
    def create(cls, path: Path, trace_id: bytes) -> Vault:
        """A new vault, readable by its owner only. FileExistsError where there is one."""
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.close(fd)
        vault = cls(_connect(path, read_only=False), path)
        with vault._writing():
            for statement in ("BEGIN", *_SCHEMA, *_ROW_COLUMNS):
                vault._db.execute(statement)
            vault._db.execute("INSERT INTO about VALUES (?, ?)", (FORMAT, trace_id))
        return vault

    @classmethod
    def open(cls, path: Path, trace_id: bytes, *, read_only: bool = True) -> Vault:
        """An existing vault. FileNotFoundError, OSError for what is no file, FormatError for what is none, TamperError
        for another trace's."""
        if not path.is_file() and path.exists():
            raise OSError(f"{path} is a pipe or a folder, and no vault; put the vault there")
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no vault at {path}; name the file that lies beside the trace, or put it there"
            )
        vault = cls(_connect(path, read_only=read_only), path)
        try:
            rows = vault._rows((str, bytes), "SELECT format, trace FROM about")
            if len(rows) != 1 or rows[0][0] not in (FORMAT, OLDER_FORMAT):
                raise FormatError(f"{path} is no {FORMAT} but {rows!r:.80}")
            if rows[0][1] != trace_id:
                raise TamperError(f"{path} belongs to trace {rows[0][1].hex()}, not {trace_id.hex()}")
        except BaseException:
            vault.close()
            raise
        return vault

    def secret(self, scope: str) -> bytes:
        """The 32 secret bytes of a scope, made on first use and on disk before they are returned."""
        found = self.find_secret(scope)
        if found is None:
            found = os.urandom(32)
            with self._writing():
                self._db.execute("INSERT INTO secrets VALUES (?, ?)", (scope, found))
        return found

    def find_secret(self, scope: str) -> bytes | None:
        """The secret of a scope, or None where it was never made or has been destroyed."""
        rows = self._rows((bytes,), "SELECT key FROM secrets WHERE scope = ?", scope)
        return rows[0][0] if rows else None

    def secrets(self) -> list[tuple[str, bytes]]:
        """Every (scope, secret), by scope."""
        return self._rows((str, bytes), "SELECT scope, key FROM secrets ORDER BY scope")

    def put_names(self, names: Iterable[tuple[bytes, str, bytes, str | None]]) -> None:
        """Remember (id, data set, CBOR key, subject) of many samples; those known already stay as they are."""
        rest = iter(names)
        with self._writing():
            while some := list(itertools.islice(rest, 200)):  # together: two thirds of the price of one by one
                values = ", ".join(["(?, ?, ?, ?)"] * len(some))
                self._db.execute(f"INSERT OR IGNORE INTO names VALUES {values}", [*itertools.chain.from_iterable(some)])

    def put_rows(self, dataset: str, block: bytes, scheme: str, rows: NDArray[np.uint32]) -> None:
        """Remember the samples of a block whose keys are row numbers: `rows` (n,) uint32 is the row at each ordinal.

        Four bytes a sample, and not a row of a table: its id is computed again from the key, under `scheme` (`public`,
        or `keyed` by this vault's secret of the run). A block that is there stays as it is."""
        with self._writing():
            self._db.execute("BEGIN IMMEDIATE")
            if self._db.execute("SELECT format FROM about").fetchone()[0] == OLDER_FORMAT:
                for statement in _ROW_COLUMNS:
                    self._db.execute(statement)
                self._db.execute("UPDATE about SET format = ?", (FORMAT,))
            said = "INSERT OR IGNORE INTO row_columns (dataset, block, scheme, samples) VALUES (?, ?, ?, ?)"
            made = self._db.execute(said, (dataset, block, scheme, len(rows)))
            if made.rowcount:
                pages = ((made.lastrowid, page, some) for page, some in enumerate(row_columns.pages(rows)))
                self._db.executemany("INSERT INTO row_pages VALUES (?, ?, ?)", pages)

    def row_columns(self) -> list[RowColumn]:
        """Every block whose keys are row numbers, and whose ids can be computed: whose secret is there. FormatError
        where the pages of one are not as long as it has samples."""
        if self._rows((str,), "SELECT format FROM about")[0][0] == OLDER_FORMAT:
            return []
        size = "(SELECT coalesce(sum(length(rows)), 0) FROM row_pages WHERE row_pages.number = row_columns.number)"
        sql = f"SELECT number, dataset, block, scheme, samples, {size} FROM row_columns ORDER BY number"
        secrets = {"public": b"", "keyed": self.find_secret("run")}
        found = []
        for number, dataset, block, scheme, samples, size in self._rows((int, str, bytes, str, int, int), sql):
            if scheme not in secrets:
                raise FormatError(f"{self.path} is a damaged vault: {scheme!r:.40} is no id scheme of row numbers")
            if samples < 1 or size != 4 * samples:
                raise FormatError(
                    f"{self.path} is a damaged vault: it says that {dataset!r:.60} has {samples} samples, and "
                    f"has {size} bytes of their row numbers, which are four each"
                )
            if (secret := secrets[scheme]) is not None:
                page = functools.partial(self._page, number)
                found.append(RowColumn(self.path, dataset, block, scheme, secret, samples, page))
        return found

    def _page(self, number: int, page: int) -> bytes:
        rows = self._rows((bytes,), "SELECT rows FROM row_pages WHERE number = ? AND page = ?", number, page)
        if not rows:
            raise FormatError(f"{self.path} is a damaged vault: page {page} of its row numbers is not there")
        found: bytes = rows[0][0]
        return found

    def find_by_id(self, sample_id: bytes) -> Name | None:
        """What the sample of that id is called."""
        found = self._names(f"{_NAMES} WHERE id = ?", sample_id)
        for column in () if found else self.row_columns():
            if (row := column.find(sample_id)) is not None:
                return Name(sample_id, column.dataset, encode(row), None)
        return next(iter(found), None)

    def find_by_key(self, key: bytes, dataset: str | None = None) -> Sequence[Name]:
        """The samples of that CBOR key, in one data set or in all."""
        found = {name.id: name for name in self._names(f"{_NAMES} WHERE key = ?", key)}
        for column in self.row_columns():
            if (sample := column.id_of(key)) is not None:
                found.setdefault(sample, Name(sample, column.dataset, key, None))
        return [name for name in found.values() if dataset is None or name.dataset == dataset]

    def names(self) -> Iterator[Name]:
        """Every sample once, by id; those of row numbers are computed."""
        of_rows = (itertools.starmap(Name, column.names()) for column in self.row_columns())
        kept = self._names(f"{_NAMES} ORDER BY id")
        last = b""
        for name in heapq.merge(kept, *of_rows, key=lambda name: name.id):
            if name.id != last:  # a row of the table and of a column, or of two columns
                yield name
            last = name.id

    def name_rows(self, size: int = 1 << 16) -> Iterator[list[tuple[Any, ...]]]:
        """Every (id, data set, CBOR key, subject) that stands in the vault (of no row column), by id, `size` at a time,
        as they stand."""
        with self._translated():
            found = self._db.execute(f"{_NAMES} ORDER BY id")
            while rows := found.fetchmany(size):
                yield rows

    def names_of(self, subject: str) -> list[Name]:
        """The samples whose subject is written like this; a number and its digits are written alike."""
        return self._names(f"{_NAMES} WHERE subject = ?", subject)

    def put_opening(self, what: str, opening: bytes) -> None:
        """Keep what opens a commitment in the log, on disk before this returns. ValueError where other bytes stand.

        `what` names the entry by a word and a slash: `sampler/...`, `placement/...`. Erasure removes those of a word.
        """
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO openings VALUES (?, ?)", (what, opening))
        if self.find_opening(what) != opening:
            raise ValueError(f"{self.path} has another opening of {what}; an opening is written once")

    def find_opening(self, what: str) -> bytes | None:
        """The opening kept under that name, or None where it was never made or has been erased."""
        rows = self._rows((bytes,), "SELECT opening FROM openings WHERE what = ?", what)
        return rows[0][0] if rows else None

    def openings(self, prefix: str) -> list[tuple[str, bytes]]:
        """Every (name, opening) whose name begins with `prefix`, by name."""
        sql = "SELECT what, opening FROM openings WHERE substr(what, 1, ?) = ? ORDER BY what"
        return self._rows((str, bytes), sql, len(prefix), prefix)

    # -- erasure ------------------------------------------------------------------------------------------------------

    def erase(
        self, scope: str, ids: Iterable[bytes], openings: Iterable[str], pseudonym: bytes, artifacts: Sequence[str]
    ) -> None:
        """In one transaction: the secret of `scope`, the names of `ids` and the named openings go, and `unfinished`
        tells of the erasure until `finish`. Then `purge`; BlockingIOError where another process holds the vault."""
        with self._purging(), self._writing():
            said = (pseudonym, "".join(f"{path}\0" for path in artifacts))
            self._db.execute("INSERT OR REPLACE INTO unfinished VALUES (?, ?)", said)
            self._db.execute("DELETE FROM secrets WHERE scope = ?", (scope,))
            self._db.executemany("DELETE FROM names WHERE id = ?", ((i,) for i in ids))
            self._db.executemany("DELETE FROM openings WHERE what = ?", ((w,) for w in openings))

    def purge(self) -> None:
        """Write the file anew without what was deleted from it, and overwrite its journal: deleted bytes are in none of
        the vault's files afterwards. Blocks that a file system has let go of are beyond this."""
        with self._purging():
            pass

    def unfinished(self) -> list[tuple[bytes, list[str]]]:
        """(pseudonym, artifacts to withdraw) of erasures that are not known to be in the log yet."""
        rows = self._rows((bytes, str), "SELECT pseudonym, artifacts FROM unfinished")
        return [(pseudonym, artifacts.split("\0")[:-1]) for pseudonym, artifacts in rows]

    def finish(self, pseudonym: bytes) -> None:
        """The log says that the subject is erased: `unfinished` forgets it."""
        with self._writing():
            self._db.execute("DELETE FROM unfinished WHERE pseudonym = ?", (pseudonym,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- SQLite -------------------------------------------------------------------------------------------------------

    def _rows(self, types: tuple[Any, ...], sql: str, *arguments: Any) -> list[Any]:
        """Rows whose columns are of these types. FormatError for others, as a damaged file may hold them."""
        with self._translated():
            try:
                rows = self._db.execute(sql, arguments).fetchall()
            except ValueError as error:  # text that is none
                raise FormatError(f"{self.path} is a damaged vault: {error}") from error
        for row in rows:
            if not all(map(isinstance, row, types)):
                found = ", ".join(type(value).__name__ for value in row)
                raise FormatError(f"{self.path} is a damaged vault: a row holds {found}")
        return rows

    def _names(self, sql: str, *arguments: Any) -> list[Name]:
        return [Name(*row) for row in self._rows((bytes, str, bytes, (str, type(None))), sql, *arguments)]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it is on disk at the end, or nothing."""
        with self._turn, self._translated(), self._db:
            yield

    @contextmanager
    def _purging(self) -> Iterator[None]:
        """Keep everybody else out, with a journal that stays where it is, and clear up behind what is done. Also of a
        vault that somebody has set to write ahead: that is undone, and its file goes
        (https://sqlite.org/pragma.html#pragma_journal_mode)."""
        with self._translated():
            if (mode := self._db.execute("PRAGMA journal_mode=PERSIST").fetchone()[0]) != "persist":
                raise BlockingIOError(f"{self.path} is held by another process ({mode}); end that one, then try again")
            for statement in ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE", "COMMIT"):
                self._db.execute(statement)  # from here on the lock is held
            yield
            self._db.execute("VACUUM")
            durable.overwrite(self.path.with_name(f"{self.path.name}-journal"))  # which holds the old pages
            self._db.execute("PRAGMA locking_mode=NORMAL")
            self._db.execute("PRAGMA journal_mode=DELETE")
            self._db.execute("SELECT format FROM about").fetchall()  # the lock goes with the next use

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.ProgrammingError):
                raise  # our mistake
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # without one: text that is none
            if code in _BUSY:
                raise BlockingIOError(f"{self.path}: {error}; another process holds it") from error
            if code in _REFUSED:
                raise OSError(f"{self.path}: {error}") from error
            raise FormatError(f"{self.path} is no vault, or a damaged one: {error}") from error


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Opened for writing even where only reading is allowed, so that a killed writer's journal can be rolled back."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, check_same_thread=False)
    db.execute("PRAGMA temp_store=MEMORY")  # VACUUM copies through it
    db.execute("PRAGMA secure_delete=ON")
    if read_only:
        db.execute("PRAGMA query_only=ON")
    return db
