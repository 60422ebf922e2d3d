"""Rotations that were cut short or kept from their end: another one finishes them, and nothing is left over."""

from __future__ import annotations

import errno
import fcntl
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from desks import Desk, holds
from fgtrac.api.adding import adding
from fgtrac.api.keys import new_key, own_keys, rotate
from fgtrac.api.prior import signer_of
from fgtrac.api.run import start_run
from fgtrac.commit.keys import Begun, Keyring, public_bytes
from fgtrac.commit.sequencer import seal
from fgtrac.errors import CaptureError, FgtracError, FormatError, TamperError
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir

CALLS = ("_write", "_fsync", "_rename", "_remove")


# -- a rotation that was begun ----------------------------------------------------------------------------------------


def begin(desk: Desk, *names: str, revoke: bool = False) -> bytes:
    """A rotation that was killed right after it was written down; its new key."""
    key = Ed25519PrivateKey.generate()
    Keyring(desk.key).begin(Begun(key, tuple(desk.path(name) for name in names), revoke))
    return public_bytes(key)


@pytest.mark.parametrize("revoke", [False, True])
@pytest.mark.parametrize("named", [(), ("b",), ("a",)], ids=["no trace", "another one", "the one that is gone"])
def test_a_trace_that_is_there_no_more_is_left_out_and_can_be_rotated_where_it_is_found(
    desk: Desk, revoke: bool, named: tuple[str, ...]
) -> None:
    old, new = desk.public, begin(desk, "a", "b", revoke=revoke)
    for suffix in (".trace", ".vault"):
        desk.path("a").with_suffix(suffix).rename(desk.path("moved").with_suffix(suffix))
    done = rotate([desk.path(name) for name in named], revoke=revoke and bool(named), path=desk.key)
    assert (done.public_key, [r.path for r in done.traces], done.gone) == (new, [desk.path("b")], (desk.path("a"),))
    assert own_keys(desk.key).unfinished == ()
    (found,) = desk.rotate("moved")
    assert (found.old, found.new, found.revoked) == (old, new, revoke)
    assert holds(desk.verify("moved", new))


def test_a_trace_that_cannot_be_rotated_says_where_its_rotation_is_written_down_and_how_to_go_on(desk: Desk) -> None:
    begin(desk, "a", "b")
    desk.path("a").rename(desk.path("aside"))
    desk.path("a").mkdir()
    with pytest.raises(
        FormatError, match=r"is no trace.*key\.pem\.rotation: fgtrac key rotate finishes it.*move that away"
    ):
        desk.rotate("b")
    desk.path("a").rmdir()
    assert [r.path for r in desk.rotate("b")] == [desk.path("b")]
    with pytest.raises(ValueError, match="no rotation was begun"):
        desk.rotate()


def test_a_rotation_of_another_kind_than_the_one_begun_is_refused_and_where_that_is_written_down_is_named(
    desk: Desk,
) -> None:
    begin(desk, "a", revoke=True)
    with pytest.raises(
        ValueError, match=r"with --revoke was begun .* in .*key\.pem\.rotation; fgtrac key rotate, without"
    ):
        desk.rotate("b")
    assert desk.rotate()[0].revoked


def test_a_theft_noticed_amid_a_rotation_makes_a_revocation_of_it(desk: Desk) -> None:
    begin(desk, "a")
    (done,) = desk.rotate("a", revoke=True)
    assert done.revoked
    assert done.old in own_keys(desk.key).revoked


def test_a_trace_that_was_rolled_back_is_refused_before_any_key_is_changed(desk: Desk) -> None:
    shutil.copytree(desk.path("a"), desk.path("aside"))
    with start_run(desk.path("a"), resume=True, key=desk.key, flush_interval_s=0) as run:
        run.log(2, loss=0.25)
    shutil.rmtree(desk.path("a"))
    desk.path("aside").rename(desk.path("a"))
    before = desk.public
    with pytest.raises(TamperError, match="rolled back"):
        desk.rotate("b", "a")
    assert desk.public == before
    assert Keyring(desk.key).begun() is None
    assert [r.path for r in desk.rotate("b")] == [desk.path("b")]


# -- crashes ----------------------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> Callable[[], int]:
    """Let the call number `at` of a function of `durable` fail, and tell how many calls there were."""
    original, calls = getattr(durable, name), itertools.count()
    seen = [0]

    def call(*arguments: Any) -> Any:
        seen[0] = next(calls) + 1
        if seen[0] - 1 == at:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    monkeypatch.setattr(durable, name, call)
    return lambda: seen[0]


KILLED = """
import os, sys
from pathlib import Path
from fgtrac.store import durable
os.link = durable._rename = lambda *a: os.kill(os.getpid(), 9)
path = Path(sys.argv[2])
write = durable.create_file if sys.argv[1] == "create" else durable.write_file
write(path, b"key", mode=0o600)
"""


@pytest.mark.parametrize("verb", ["show", "new", "rotate"])
def test_what_a_killed_process_left_of_a_key_is_removed_by_the_next_verb_and_what_is_being_written_stays(
    desk: Desk, verb: str
) -> None:
    keys = desk.key.parent
    for how, name in (
        ("create", "retired/x.pem"),
        ("create", "key.pem"),
        ("write", "key.pem"),
        ("write", "key.pem.rotation"),
    ):
        done = subprocess.run([sys.executable, "-c", KILLED, how, str(keys / name)], check=False)
        assert done.returncode == -9
    assert len(list(keys.rglob("*.tmp"))) == 4
    held, other = keys / "retired" / "y.pem.01.tmp", keys / "mine.tmp"
    other.touch()
    with held.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if verb == "show":
            own_keys(desk.key)
        elif verb == "new":
            with pytest.raises(FileExistsError):
                new_key(desk.key)
        else:
            desk.rotate("a")
        assert sorted(keys.rglob("*.tmp")) == sorted([held, other])


def test_a_signer_goes_on_under_the_key_that_another_process_has_put_in_the_place_of_its_own(desk: Desk) -> None:
    trace = TraceDir(desk.path("a"))
    signer = signer_of(trace, desk.key)
    desk.rotate("a")
    desk.rotate("a")
    with adding(trace, desk.key) as added:
        added.recorder.record("metrics", {"step": 2, "values": {}})
        added.recorder.sync()
        added.recorder.rotate()
        assert seal(trace, signer, full=False, clock=time.time_ns).new_entries == 1
    assert holds(desk.verify("a", desk.public))


def test_a_journal_that_may_not_be_written_is_one_clear_line(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    original = durable._open_held

    def refuse(path: Path, flags: int, mode: int) -> int:
        if path.suffix == ".wal":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, flags, mode)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "_open_held", refuse)
        with pytest.raises(CaptureError, match=r"Permission denied.*make it writable.*key\.pem\.rotation"):
            desk.rotate("a")  # a warning would be an error here
    assert len(desk.rotate("a")) == 1
    assert holds(desk.verify("a", desk.public))


@pytest.mark.parametrize("function", CALLS)
def test_a_rotation_that_fails_at_any_write_is_finished_by_another(
    desk: Desk, function: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Between the two the trace is refuted under one of the keys at most; afterwards there is one new key, and the one
    before is retired and revoked once."""
    old = desk.public
    for at in itertools.count():
        copy = Desk(tmp_path / f"{function}{at}")
        shutil.copytree(desk.folder, copy.folder)
        with monkeypatch.context() as patched:
            calls = failing(patched, function, at)
            try:
                copy.rotate("a", revoke=True)
                failed = False
            except (OSError, FgtracError):
                failed = True
            if calls() <= at:
                break
        monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "a stranger's.pem"))
        between = [copy.verify("a", key) for key in (old, copy.public)]
        assert any(report.exit_code != 1 for report in between), (at, [report.failures() for report in between])
        if failed:
            copy.rotate("a", revoke=True)
        monkeypatch.setenv("FGTRAC_KEY", str(copy.key))
        assert holds(copy.verify("a", copy.public)), (at, copy.verify("a", copy.public).failures())
        assert copy.verify("a", old).exit_code == 3
        assert [e["kind"] for e in copy.entries("a")].count("key") == 1, at
        assert own_keys(copy.key).unfinished == ()
        assert own_keys(copy.key).revoked == (old,)
        assert len(own_keys(copy.key).retired) == 1
        shutil.rmtree(copy.folder)
    assert at > 0


def test_a_run_that_ends_with_its_process_and_cannot_be_sealed_says_so_in_one_line(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start_run(desk.path("b"), resume=True, key=desk.key, flush_interval_s=0)
    for state in (desk.key.parent / "heads").glob("?" * 32):
        state.write_bytes(b"nothing")
    run._interrupted()
    closed, failed = capsys.readouterr().err.splitlines()
    assert "was not closed" in closed
    assert "b.trace could not be sealed: the note has no empty line" in failed
