"""Every write, sync, rename, removal and SQL statement of an erasure fails once; at every second it is killed.

Behind each, one checker: nothing promised is lost, nothing is green that is not so, and `erase` again completes.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from erasable import ANN, BOB, KEYS, files_with, key_of, pseudonym_of, write_small
from fgtrac.api.audit import audit_trace
from fgtrac.api.erase import Erasure, erase
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

    def check_after_fault(self, trace: Path) -> tuple[bool, bool]:
        """`check`, then erase again: she is erased, in the log and in every file. How it stood before: whether the log
        said so, and whether something was left to do."""
        before = self.check(trace), bool(unfinished(trace))
        if before != (True, False):
            (done,) = erase_again(trace)
            assert done.pseudonym == self.pseudonym
            assert self.check(trace)
            assert not unfinished(trace)
        assert files_with(trace.parent, self.key, *(KEYS[row].encode() for row in (0, 2, 5))) == set()
        directory = TraceDir.open(trace)
        failures = audit_trace(directory, signer_of(directory).verifier).failures()
        assert [(f.check, f.verdict) for f in failures] == [("artifacts", Verdict.CANNOT_TELL)]
        return before


def erase_again(trace: Path) -> list[Erasure]:
    """What that does: erase her, or finish what was begun and then know nobody of her name."""
    done: list[Erasure] = []
    if unfinished(trace):
        with pytest.raises(ValueError, match="An interrupted erasure was finished just now"):
            erase(trace, subject=ANN, report=done.append)
        assert [erasure.resumed for erasure in done] == [True]
    else:
        erase(trace, subject=ANN, report=done.append)
    return done


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
        """At every system call of store/durable.py and every statement and commit of the vault."""
        for name in SYSTEM_CALLS:
            setattr(durable, name, self._counted(getattr(durable, name)))
        connect = vaults._connect
        vaults._connect = lambda path, *, read_only: Connection(connect(path, read_only=read_only), self)

    def _counted(self, function: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            self.point(OSError)
            return function(*arguments)

        return counted


class Connection:
    """A vault's connection whose statements are points."""

    def __init__(self, db: sqlite3.Connection, faults: Faults) -> None:
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


def unsynced(db: sqlite3.Connection) -> sqlite3.Connection:
    db.execute("PRAGMA synchronous=OFF")
    return db


def raise_it(kind: type[Exception]) -> NoReturn:
    error: Any = kind("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    raise error


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
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("small")).parent


@pytest.mark.parametrize(("strike", "code", "every"), [(raise_it, 1, 1), (kill_it, -signal.SIGKILL, 2)])
def test_an_erasure_survives_a_fault_at_every_single_point(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strike: Any, code: int, every: int
) -> None:
    connect = vaults._connect
    monkeypatch.setattr(durable, "_fsync", lambda fd: None)  # no power is lost here: syncs are points, and take no time
    monkeypatch.setattr(vaults, "_connect", lambda path, *, read_only: unsynced(connect(path, read_only=read_only)))
    promised, number, seen = Promised(template / "run.trace"), 0, set()
    ended = code
    while ended == code:
        number += every
        folder = tmp_path / str(number)
        shutil.copytree(template, folder)
        monkeypatch.setenv("FGTRAC_KEY", str(folder / "key.pem"))
        ended = in_a_child(folder / "run.trace", Faults(number, strike))
        assert ended in (code, 0), f"point {number} ended with {ended}"
        seen.add(promised.check_after_fault(folder / "run.trace"))
        shutil.rmtree(folder)
    assert number > 80
    assert seen == {(False, False), (False, True), (True, True), (True, False)}  # every state was met


# -- the same from outside: the kernel refuses, or kills, whatever library asks it ----------------------------------

VAULT = ("run.vault", "run.vault-journal")
FROM_OUTSIDE = [
    *(("pwrite64", at, "error=ENOSPC", VAULT) for at in (1, 40, 80)),
    *(("fdatasync", at, "error=EIO", VAULT) for at in (2, 8)),
    *(("pwrite64", at, "signal=KILL", VAULT) for at in (12, 35, 60, 85)),
    ("fdatasync", 5, "signal=KILL", VAULT),
    ("unlink", 1, "error=EIO", VAULT),
    ("unlink", 3, "error=EIO", ()),  # a withdrawn file
    ("rename", 2, "error=EIO", ()),
    ("fsync", 9, "signal=KILL", ()),
]


def can_inject(folder: Path) -> bool:
    """Whether strace is here and may trace: a container can forbid it."""
    if shutil.which("strace") is None:
        return False
    command = ["strace", "-o", str(folder / "try"), "-e", "inject=unlink:error=EIO:when=1", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_an_erasure_survives_what_the_kernel_refuses_it(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_inject(tmp_path):
        pytest.skip("strace is not installed, or may not trace here: apt-get install strace")
    promised, ended = Promised(template / "run.trace"), []
    program = "import sys; from fgtrac.api.erase import erase; erase(sys.argv[1], subject=sys.argv[2])"
    for number, (call, at, fault, files) in enumerate(FROM_OUTSIDE):
        folder = tmp_path / str(number)
        shutil.copytree(template, folder)
        monkeypatch.setenv("FGTRAC_KEY", str(folder / "key.pem"))
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        command = ["strace", "-f", "-o", str(tmp_path / "log"), *(f"-P{folder / name}" for name in files)]
        command += ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={at}"]
        child = [sys.executable, "-c", program, str(folder / "run.trace"), ANN]
        done = subprocess.run([*command, *child], capture_output=True, text=True, check=False)
        assert "INJECTED" in (tmp_path / "log").read_text() or done.returncode == -signal.SIGKILL, (call, at)
        assert done.returncode == (-signal.SIGKILL if "KILL" in fault else done.returncode), (call, at, done)
        ended.append(done.returncode)
        promised.check_after_fault(folder / "run.trace")
    assert ended.count(1) >= 6  # a refused removal of SQLite's own journal is no failure
    assert set(ended) <= {0, 1, -signal.SIGKILL}
