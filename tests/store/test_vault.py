"""The vault's transactions: all or nothing under every fault, errors in words, and deleted bytes that are gone."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgtrac.errors import FormatError, TamperError
from fgtrac.events.codec import encode
from fgtrac.store import durable
from fgtrac.store.vault import Name, Vault

TRACE_ID = b"t" * 16
ROWS = [(bytes([n]) * 32, "digits", encode(f"key-{n}"), "ada" if n % 2 else None) for n in range(40)]


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = Vault.create(tmp_path / "a.vault", TRACE_ID)
    made.secret("run")
    made.secret("subject:61")
    made.put_names(ROWS)
    made.put_opening("sampler/00/1", b"one")
    made.put_opening("placement/ff", b"two")
    yield made
    made.close()


def everything(path: Path) -> tuple[Any, ...]:
    vault = Vault.open(path, TRACE_ID)
    try:
        return tuple(vault.names()), vault.secrets(), vault.openings(""), vault.unfinished()
    finally:
        vault.close()


def in_a_child(do: Callable[[], None]) -> int:
    """Do it in a process of its own: 0 done, 1 an OSError in words, -9 killed."""
    if (child := os.fork()) == 0:
        code = 3
        try:
            do()
            code = 0
        except OSError as error:
            code = 1 if ".vault: " in str(error) else 4
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_openings_are_kept_by_name_and_written_once(vault: Vault) -> None:
    assert vault.find_opening("sampler/00/1") == b"one"
    assert vault.find_opening("sampler/00/2") is None
    assert vault.openings("sampler/") == [("sampler/00/1", b"one")]
    vault.put_opening("sampler/00/1", b"one")
    with pytest.raises(ValueError, match="has another opening of sampler/00/1; an opening is written once"):
        vault.put_opening("sampler/00/1", b"other")


def test_many_names_are_put_in_few_statements_and_the_first_of_an_id_stays(vault: Vault) -> None:
    statements: list[str] = []
    vault._db.set_trace_callback(statements.append)
    names = [Name(n.to_bytes(32, "big"), "many", encode(n), None) for n in range(1 << 20, (1 << 20) + 501)]
    again = Name(names[7].id, "again", b"\0", None)
    vault.put_names((n.id, n.dataset, n.key, n.subject) for n in [*names, again, names[0]])
    vault.put_names(iter(()))
    assert len([one for one in statements if "INSERT" in one]) == 3
    assert [name for name in vault.names() if name.dataset in ("many", "again")] == names


def test_an_erasure_takes_what_is_named_and_leaves_a_note_until_it_is_finished(vault: Vault) -> None:
    ada = [name.id for name in vault.names_of("ada")]
    run = vault.secret("run")
    assert len(ada) == 20
    vault.erase("subject:61", ada[:15], ["sampler/00/1"], b"p" * 32, ["artifacts/x"])
    assert vault.secrets() == [("run", run)]
    assert len(list(vault.names())) == 25
    assert vault.openings("") == [("placement/ff", b"two")]
    assert vault.unfinished() == [(b"p" * 32, ["artifacts/x"])]
    assert [p.name for p in vault.path.parent.iterdir()] == ["a.vault"]
    vault.finish(b"p" * 32)
    assert vault.unfinished() == []
    vault.secret("subject:61")  # and it can be written to as before


@pytest.mark.parametrize("fill", [1, 3000])
def test_deleted_bytes_are_in_none_of_its_files(tmp_path: Path, fill: int) -> None:
    """Also where the file shrinks, so that its journal is longer than what is left."""
    vault = Vault.create(tmp_path / "a.vault", TRACE_ID)
    key, kept = vault.secret("subject:61"), vault.secret("run")
    hers = [(os.urandom(32), "digits", encode(f"her-key-{n}"), "ada") for n in range(fill)]
    vault.put_names(hers)
    words = [key, *(row[2] for row in hers[:: max(1, fill // 50)])]
    assert all(word in vault.path.read_bytes() for word in words)
    vault.close()
    vault = Vault.open(tmp_path / "a.vault", TRACE_ID, read_only=False)
    vault.erase("subject:61", [row[0] for row in hers], [], b"p" * 32, [])
    held = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert not [word for word in words if word in held]
    assert kept in held
    vault.close()


def test_what_a_vault_opened_for_reading_is_told_is_refused(vault: Vault) -> None:
    reader = Vault.open(vault.path, TRACE_ID)
    with pytest.raises(OSError, match=r"a\.vault: attempt to write a readonly database"):
        reader.put_names(ROWS)
    with pytest.raises(OSError, match="readonly"):
        reader.secret("another")
    reader.close()


def disk_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    return error


class Failing:
    """A connection whose statement or commit number `at` fails, before or behind what it does."""

    def __init__(self, db: sqlite3.Connection, at: int, *, behind: bool) -> None:
        self._db, self._left, self._behind = db, at, behind
        self.close = db.close

    def _pass(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise disk_error()

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        return self._do(self._db.execute, arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        return self._do(self._db.executemany, arguments)

    def _do(self, function: Any, arguments: Any) -> sqlite3.Cursor:
        if not self._behind:
            self._pass()
        result = function(*arguments)
        if self._behind:
            self._pass()
        return result

    def __enter__(self) -> None:
        self._db.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._db.__exit__(kind, error, trace)


WRITES: dict[str, Callable[[Vault], Any]] = {
    "secret": lambda vault: vault.secret("subject:62"),
    "put_names": lambda vault: vault.put_names((b"n" * 31 + bytes([n]), "digits", encode(n), None) for n in range(9)),
    "put_rows": lambda vault: vault.put_rows("rows", b"b" * 16, "public", np.arange(9, dtype=np.uint32)),
    "put_opening": lambda vault: vault.put_opening("sampler/00/9", b"nine"),
    "erase": lambda vault: vault.erase("subject:61", [ROWS[1][0]], ["sampler/00/1"], b"p" * 32, []),
    "finish": lambda vault: vault.finish(b"q" * 32),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("behind", [False, True])
def test_a_statement_that_fails_leaves_all_or_nothing(vault: Vault, write: str, behind: bool) -> None:
    vault.erase("none", [], [], b"q" * 32, [])
    before, number = everything(vault.path), 0
    while True:
        number += 1
        once = Vault.open(vault.path, TRACE_ID, read_only=False)
        once._db = Failing(once._db, number, behind=behind)  # type: ignore[assignment]
        try:
            WRITES[write](once)
            break
        except OSError as error:
            said = str(error)
        finally:
            once.close()
        assert "a.vault: disk I/O error" in said
        now = everything(vault.path)
        again = Vault.open(vault.path, TRACE_ID, read_only=False)
        WRITES[write](again)
        again.close()
        after = everything(vault.path)
        assert now == before or (now == after if write != "secret" else len(now[1]) == len(after[1]))
        restore(vault.path, before)
    assert number > 1


def restore(path: Path, to: tuple[Any, ...]) -> None:
    """Put the vault back by hand to what `everything` said."""
    names, secrets, openings, unfinished = to
    db = sqlite3.connect(path)
    with db:
        for table in ("names", "secrets", "openings", "unfinished", "row_columns", "row_pages"):
            db.execute(f"DELETE FROM {table}")
        db.executemany("INSERT INTO names VALUES (?, ?, ?, ?)", [(n.id, n.dataset, n.key, n.subject) for n in names])
        db.executemany("INSERT INTO secrets VALUES (?, ?)", secrets)
        db.executemany("INSERT INTO openings VALUES (?, ?)", openings)
        db.executemany("INSERT INTO unfinished VALUES (?, '')", [(p,) for p, _ in unfinished])
    db.close()


def test_a_full_disk_is_said_in_words_and_loses_nothing(vault: Vault) -> None:
    before = everything(vault.path)

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        child = Vault.open(vault.path, TRACE_ID, read_only=False)
        child.put_names((os.urandom(32), "digits", encode(n), None) for n in range(20_000))

    assert in_a_child(fill) == 1
    assert everything(vault.path) == before
    vault.secret("subject:62")


def test_a_writer_killed_in_the_middle_is_rolled_back_by_whoever_reads_next(vault: Vault) -> None:
    before = everything(vault.path)

    def die() -> None:
        child = Vault.open(vault.path, TRACE_ID, read_only=False)
        child._db.execute("PRAGMA cache_size=10")  # so that pages reach the file before the commit
        with child._writing():
            child._db.execute("DELETE FROM secrets")
            rows = [(os.urandom(32), "digits", encode(n), None) for n in range(3000)]
            child._db.executemany("INSERT INTO names VALUES (?, ?, ?, ?)", rows)
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(die) == -signal.SIGKILL
    assert vault.path.with_name("a.vault-journal").exists()
    assert before[1][0][1] not in vault.path.read_bytes()
    assert everything(vault.path) == before


def test_damaged_bytes_are_a_value_or_an_error_in_words(vault: Vault) -> None:
    vault.put_rows("rows", b"b" * 16, "public", np.arange(3000, dtype=np.uint32))
    whole, chance = vault.path.read_bytes(), random.Random(5)
    vault.close()
    refused: list[str] = []
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 5, 200))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        vault.path.write_bytes(data[: chance.choice((len(data), len(data) // 2))])
        try:
            everything(vault.path)
        except (FormatError, TamperError, OSError) as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all("a.vault" in words for words in refused)


def test_threads_of_a_run_share_a_vault_without_sharing_a_transaction(vault: Vault) -> None:
    def write(number: int) -> None:
        for n in range(8):
            vault.put_opening(f"sampler/{number}/{n}", b"%d" % n)
            vault.put_names([(bytes([number, n]) * 16, "digits", encode(n), None)])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(100, 104)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(vault.openings("sampler/10")) == 32
    assert len(list(vault.names())) == 40 + 32
    assert vault.find_by_id(ROWS[1][0]) == Name(*ROWS[1])


def test_the_journal_is_overwritten_before_it_goes(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the old pages: removing it alone would leave them on the disk for whoever undeletes files."""
    key, overwrite = vault.secret("run"), durable.overwrite  # of a page that VACUUM has moved
    seen: list[bytes] = []

    def watched(path: Path) -> None:
        seen.append(path.read_bytes())
        overwrite(path)
        seen.append(path.read_bytes())

    monkeypatch.setattr(durable, "overwrite", watched)
    vault.erase("subject:61", [], [], b"p" * 32, [])
    before, after = seen
    assert key in before
    assert after == bytes(len(before))
