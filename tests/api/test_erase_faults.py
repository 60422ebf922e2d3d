"""Every write, sync, rename, removal and SQL statement of an erasure fails once, and is killed at once.

Behind each, one checker: nothing promised is lost, nothing is green that is not so, and `erase` again completes.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from erasable import ANN, BOB, KEYS, files_with, key_of, pseudonym_of, write_small
from fgtrac.api.audit import audit_trace
from fgtrac.api.erase import erase
from fgtrac.api.prior import signer_of, trace_id_of
from fgtrac.events.codec import encode
from fgtrac.store import durable
from fgtrac.store import vault as vaults
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.verify.report import Verdict

SYSTEM_CALLS = ("_write", "_fsync", "_rename", "_remove")
HERS = ("artifacts/scoring", "artifacts/targets")


class Promised:
    """What holds before, and so is owed afterwards: the key of a subject that stays, and hers while she is there."""

    def __init__(self, trace: Path) -> None:
        self.key, self.pseudonym, self.others = key_of(trace, ANN), pseudonym_of(trace, ANN), key_of(trace, BOB)

    def check(self, trace: Path) -> bool:
        """Whether she is erased, as the log says; AssertionError for a promise broken or a false green."""
        directory = TraceDir.open(trace)
        vault = Vault.open(trace.with_suffix(".vault"), trace_id_of(directory))  # a killed writer is rolled back here
        keys, pending = dict(vault.secrets()), [p for p, _artifacts in vault.unfinished()]
        names = {name.key for name in vault.names()}
        vault.close()
        assert keys[f"subject:{encode(BOB).hex()}"] == self.others
        assert {encode(KEYS[row]) for row in (1, 3, 4)} <= names
        report = audit_trace(directory, signer_of(directory).verifier)
        found = {f.check: f.verdict for f in report.findings}
        there = [path for path in directory.names() if path.startswith(HERS)]
        says_erased = "erasures" in found
        has_key = self.key in keys.values()
        assert has_key or says_erased or pending == [self.pseudonym]  # never gone without anybody's knowing
        if has_key:
            assert {encode(KEYS[row]) for row in (0, 2, 5)} <= names
        if says_erased:
            assert found["erasures"] is Verdict.HOLDS
            assert not has_key
            assert not there
        if len(there) < 2:  # and no false green: what is gone is refuted until the log says why
            assert found["artifacts"] is (Verdict.CANNOT_TELL if says_erased else Verdict.REFUTED)
        return says_erased

    def check_complete(self, trace: Path) -> None:
        """Erase again: she is erased, in the log and in every file."""
        if not self.check(trace) or unfinished(trace):
            (done,) = erase(trace, subject=ANN)
            assert done.pseudonym == self.pseudonym
        assert self.check(trace)
        assert not unfinished(trace)
        assert files_with(trace.parent, self.key, *(KEYS[row].encode() for row in (0, 2, 5))) == set()
        directory = TraceDir.open(trace)
        failures = audit_trace(directory, signer_of(directory).verifier).failures()
        assert [(f.check, f.verdict) for f in failures] == [("artifacts", Verdict.CANNOT_TELL)]


def unfinished(trace: Path) -> list[Any]:
    vault = Vault.open(trace.with_suffix(".vault"), trace_id_of(TraceDir.open(trace)))
    try:
        return vault.unfinished()
    finally:
        vault.close()


class Faults:
    """Strikes at one of all the points that are passed."""

    def __init__(self, at: int, strike: Callable[[type[Exception]], NoReturn]) -> None:
        self.passed, self._at, self._strike = 0, at, strike

    def point(self, kind: type[Exception]) -> None:
        self.passed += 1
        if self.passed == self._at:
            self._strike(kind)

    def install(self) -> None:
        """At every system call of store/durable.py and every statement and commit of the vault. Nothing is synced to
        the disk any more: what a killed process has written stays in the system's memory."""
        for name in SYSTEM_CALLS:
            setattr(durable, name, self._counted(getattr(durable, name), syncs=name == "_fsync"))
        connect = vaults._connect
        vaults._connect = lambda path, *, read_only: Connection(connect(path, read_only=read_only), self)

    def _counted(self, function: Any, *, syncs: bool) -> Any:
        def counted(*arguments: Any) -> Any:
            self.point(OSError)
            return None if syncs else function(*arguments)

        return counted


class Connection:
    """A vault's connection whose statements are points."""

    def __init__(self, db: sqlite3.Connection, faults: Faults) -> None:
        db.execute("PRAGMA synchronous=OFF")
        self._db, self._faults = db, faults
        self.close = db.close

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        self._faults.point(sqlite3.OperationalError)
        return self._db.execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        self._faults.point(sqlite3.OperationalError)
        return self._db.executemany(*arguments)

    def __enter__(self) -> None:
        self._db.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if error is None:
                self._faults.point(sqlite3.OperationalError)
        except sqlite3.OperationalError:
            self._db.rollback()
            raise
        self._db.__exit__(kind, error, trace)


def raise_it(kind: type[Exception]) -> NoReturn:
    raise kind("disk I/O error")


def kill_it(kind: type[Exception]) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def in_a_child(trace: Path, faults: Faults) -> int:
    """Erase in a process of its own, with these faults: 0 done, 1 an OSError in words, 9 killed."""
    if (child := os.fork()) == 0:
        code = 3
        try:
            faults.install()
            erase(trace, subject=ANN)
            code = 0
        except OSError as error:
            code = 1 if "disk I/O error" in str(error) else 4
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("small")).parent


@pytest.mark.parametrize(("strike", "code"), [(raise_it, 1), (kill_it, -signal.SIGKILL)])
def test_an_erasure_survives_a_fault_at_every_single_point(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strike: Any, code: int
) -> None:
    promised, number, seen = Promised(template / "run.trace"), 0, set()
    ended = code
    while ended == code:
        number += 1
        folder = tmp_path / str(number)
        shutil.copytree(template, folder)
        monkeypatch.setenv("FGTRAC_KEY", str(folder / "key.pem"))
        ended = in_a_child(folder / "run.trace", Faults(number, strike))
        assert ended in (code, 0), f"point {number} ended with {ended}"
        seen.add((promised.check(folder / "run.trace"), bool(unfinished(folder / "run.trace"))))
        promised.check_complete(folder / "run.trace")
        shutil.rmtree(folder)
    assert number > 80
    assert seen == {(False, False), (False, True), (True, True), (True, False)}  # every state was met
