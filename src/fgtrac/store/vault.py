"""The vault beside the trace: secret keys, and the way back from ids to keys. SQLite, mode 0600, bound to one trace."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgtrac.errors import FormatError, TamperError

FORMAT = "fgtrac vault v1"
_SCHEMA = """
CREATE TABLE about (format TEXT NOT NULL, trace BLOB NOT NULL);
CREATE TABLE secrets (scope TEXT PRIMARY KEY, key BLOB NOT NULL);
CREATE TABLE names (id BLOB PRIMARY KEY, dataset TEXT NOT NULL, key BLOB NOT NULL, subject TEXT) WITHOUT ROWID;
CREATE TABLE openings (what TEXT PRIMARY KEY, opening BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Name:
    """What a sample is called: its data set, its key as CBOR, its subject if it has one."""

    id: bytes
    dataset: str
    key: bytes
    subject: str | None


class Vault:
    """One trace's secrets. A vault opened for reading changes nothing."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path

    @classmethod
    def create(cls, path: Path, trace_id: bytes) -> Vault:
        """A new vault, readable by its owner only. FileExistsError where there is one."""
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.close(fd)
        db = sqlite3.connect(path, check_same_thread=False)
        with db:
            db.executescript(_SCHEMA)
            db.execute("INSERT INTO about VALUES (?, ?)", (FORMAT, trace_id))
        return cls(db, path)

    @classmethod
    def open(cls, path: Path, trace_id: bytes, *, read_only: bool = True) -> Vault:
        """An existing vault. FileNotFoundError, FormatError for what is none, TamperError for another trace's."""
        if not path.is_file():
            raise FileNotFoundError(f"there is no vault at {path}; name samples by id:HEX, or put the vault there")
        mode = "ro" if read_only else "rw"
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, check_same_thread=False)
        try:
            row = db.execute("SELECT format, trace FROM about").fetchone()
        except sqlite3.DatabaseError as error:
            db.close()
            raise FormatError(f"{path} is no vault: {error}") from error
        if row is None or row[0] != FORMAT:
            db.close()
            raise FormatError(f"{path} is no {FORMAT} but {row!r:.80}")
        if row[1] != trace_id:
            db.close()
            raise TamperError(f"{path} belongs to trace {bytes(row[1]).hex()}, not {trace_id.hex()}")
        return cls(db, path)

    def secret(self, scope: str) -> bytes:
        """The 32 secret bytes of a scope, made on first use and on disk before they are returned."""
        row = self._db.execute("SELECT key FROM secrets WHERE scope = ?", (scope,)).fetchone()
        if row is None:
            key = os.urandom(32)
            with self._db:
                self._db.execute("INSERT INTO secrets VALUES (?, ?)", (scope, key))
            return key
        return bytes(row[0])

    def find_secret(self, scope: str) -> bytes | None:
        """The secret of a scope, or None where it was never made or has been destroyed."""
        row = self._db.execute("SELECT key FROM secrets WHERE scope = ?", (scope,)).fetchone()
        return None if row is None else bytes(row[0])

    def put_names(self, names: Iterable[tuple[bytes, str, bytes, str | None]]) -> None:
        """Remember (id, data set, CBOR key, subject) of many samples; those known already stay as they are."""
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO names VALUES (?, ?, ?, ?)", names)

    def find_by_id(self, sample_id: bytes) -> Name | None:
        """What the sample of that id is called."""
        row = self._db.execute("SELECT id, dataset, key, subject FROM names WHERE id = ?", (sample_id,)).fetchone()
        return None if row is None else Name(*row)

    def find_by_key(self, key: bytes, dataset: str | None = None) -> Sequence[Name]:
        """The samples of that CBOR key, in one data set or in all."""
        sql, arguments = "SELECT id, dataset, key, subject FROM names WHERE key = ?", [key]
        if dataset is not None:
            sql, arguments = sql + " AND dataset = ?", [key, dataset]  # type: ignore[list-item]
        return [Name(*row) for row in self._db.execute(sql, arguments)]

    def names(self) -> Iterable[Name]:
        """Every sample, by id."""
        return (Name(*row) for row in self._db.execute("SELECT id, dataset, key, subject FROM names ORDER BY id"))

    def put_opening(self, what: str, opening: bytes) -> None:
        """Keep what opens a commitment in the log, on disk before this returns. ValueError where other bytes stand.

        `what` names the entry by a word and a slash: `sampler/...`, `placement/...`. Erasure removes those of a word.
        """
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO openings VALUES (?, ?)", (what, opening))
        if self.find_opening(what) != opening:
            raise ValueError(f"{self.path} has another opening of {what}; an opening is written once")

    def find_opening(self, what: str) -> bytes | None:
        """The opening kept under that name, or None where it was never made or has been erased."""
        row = self._db.execute("SELECT opening FROM openings WHERE what = ?", (what,)).fetchone()
        return None if row is None else bytes(row[0])

    def openings(self, prefix: str) -> list[tuple[str, bytes]]:
        """Every (name, opening) whose name begins with `prefix`, by name."""
        sql = "SELECT what, opening FROM openings WHERE substr(what, 1, ?) = ? ORDER BY what"
        return [(what, bytes(opening)) for what, opening in self._db.execute(sql, (len(prefix), prefix))]

    def close(self) -> None:
        """Close the file."""
        self._db.close()
