"""Rotating the signing key on real traces: who can verify before and after, what is refused, every crash between."""

from __future__ import annotations

import itertools
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

import fgtrac
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.keys import Rotated, new_key, own_keys, own_vkey, revoke_key, rotate
from fgtrac.api.run import start_run
from fgtrac.api.sealing import seal_trace
from fgtrac.api.trace import open_for_verification
from fgtrac.commit.keys import Keyring, load_key, public_bytes
from fgtrac.errors import CaptureError, FgtracError, FormatError, TamperError
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store import durable
from fgtrac.store.journal import encode_frame
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import read_entries
from fgtrac.verify.report import Report, Verdict
from findings import words_of
from traces import files_of

CALLS = ("_write", "_fsync", "_rename", "_remove")


@dataclass(frozen=True, slots=True)
class Desk:
    """A user's folder: key.pem, and the traces a and b."""

    folder: Path

    @property
    def key(self) -> Path:
        return self.folder / "keys" / "key.pem"

    @property
    def public(self) -> bytes:
        return public_bytes(load_key(self.key))

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.trace"

    def record(self, name: str, **options: Any) -> None:
        """A run that registers eight samples and logs one value."""
        with start_run(self.path(name), key=self.key, ids="public", flush_interval_s=0, **options) as run:
            run.register(TensorDataset(torch.arange(8.0)[:, None]), role="train")
            run.log(1, loss=0.5)

    def rotate(self, *names: str, revoke: bool = False) -> tuple[Rotated, ...]:
        return rotate([self.path(n) for n in names], revoke=revoke, path=self.key).traces

    def verify(self, name: str, key: bytes | None) -> Report:
        return open_for_verification(self.path(name)).verify(None if key is None else key.hex())

    def entries(self, name: str) -> list[dict[str, Any]]:
        trace = TraceDir(self.path(name))
        head = trace.head()
        assert head is not None
        return [decode_event(entry) for entry in read_entries(trace, 0, head.size, head.size)]

    def signer_of_head(self, name: str) -> str:
        return open_for_verification(self.path(name)).verify(None).findings[0].words


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.record("a")
    desk.record("b")
    return desk


@pytest.fixture
def desk(recorded: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A copy, whose key is the user's own."""
    shutil.copytree(recorded.folder, tmp_path / "desk")
    copy = Desk(tmp_path / "desk")
    monkeypatch.setenv("FGTRAC_KEY", str(copy.key))
    return copy


def holds(report: Report) -> bool:
    return report.verdict is Verdict.HOLDS


# -- a rotation -------------------------------------------------------------------------------------------------------


def test_after_a_rotation_holders_of_either_key_verify_and_the_trace_goes_on_under_the_new_one(desk: Desk) -> None:
    old = desk.public
    (done,) = desk.rotate("a")
    assert (done.old, done.new, done.revoked) == (old, desk.public, False)
    for key in (old, desk.public, None):
        assert holds(desk.verify("a", key)), desk.verify("a", key).failures()
    assert "through entry" in words_of(desk.verify("a", old), "signature")
    start_run(desk.path("a"), resume=True, key=desk.key, flush_interval_s=0).__exit__(None, None, None)
    with fgtrac.reopen(desk.path("a"), key=desk.key):
        pass
    assert seal_trace(desk.path("a"), desk.key).full
    for key in (old, desk.public):
        assert holds(desk.verify("a", key)), desk.verify("a", key).failures()
    assert [e["kind"] for e in desk.entries("a")].count("key") == 1
    assert fgtrac.open(desk.path("a"), key=old.hex()).history("TensorDataset:0").rests_on.startswith("as signed")


def test_a_trace_that_was_not_named_stays_under_the_old_key_and_can_be_sealed_with_it(desk: Desk) -> None:
    old = desk.public
    desk.rotate("a")
    with start_run(desk.path("b"), resume=True, key=desk.key, flush_interval_s=0) as run:
        run.log(2, loss=0.25)
    assert holds(desk.verify("b", old))
    assert holds(desk.verify("b", None))  # the user's own keys: the one that signed it
    assert not holds(desk.verify("b", desk.public))
    assert own_vkey(desk.path("b"), desk.key) != own_vkey(desk.path("a"), desk.key)


def test_a_trace_under_an_older_key_is_moved_to_the_present_one_without_making_another(desk: Desk) -> None:
    old = desk.public
    desk.rotate("a")
    middle = desk.public
    (moved,) = desk.rotate("b")
    assert (moved.old, moved.new) == (old, middle) == (old, desk.public)
    desk.rotate("a", "b")
    assert desk.public not in (old, middle)
    for name, key in itertools.product("ab", (old, middle, desk.public)):
        assert holds(desk.verify(name, key))
    assert own_keys(desk.key).retired == tuple(sorted((old, middle)))
    assert own_keys(desk.key).unfinished == ()


def test_a_key_that_was_put_back_does_not_sign_a_trace_a_second_time(desk: Desk) -> None:
    old, kept = desk.public, desk.key.read_bytes()
    desk.rotate("a", "b")
    middle = desk.public
    desk.rotate("b")
    desk.key.write_bytes(kept)  # somebody restores the first key.pem
    (done,) = desk.rotate("a")
    assert done.old == middle
    assert done.new not in (old, middle)
    for key in (old, middle, done.new):
        assert holds(desk.verify("a", key)), desk.verify("a", key).failures()


@pytest.mark.parametrize("new", ["own", "a stranger's"])
def test_a_key_entry_that_somebody_slips_into_the_journal_is_not_sealed(desk: Desk, new: str) -> None:
    desk.rotate("b")
    public, writer = (desk.public if new == "own" else bytes(32)), bytes(16)
    forged = {"kind": "key", "public_key": public, "old_signature": bytes(64), "new_signature": bytes(64)}
    entry = encode_event({**forged, "time": 0, "writer": writer, "seq": 0})
    journal = desk.path("a") / "journal" / f"{writer.hex()}-0.wal"
    journal.write_bytes(encode_frame(entry))
    before = files_of(desk.path("a"))
    with pytest.raises(TamperError, match=r"\(key\) is not signed by the key before it.*: move the journal file"):
        seal_trace(desk.path("a"), desk.key)
    assert files_of(desk.path("a")) == before
    journal.unlink()
    assert seal_trace(desk.path("a"), desk.key).full


def test_keys_are_readable_by_their_owner_only(desk: Desk) -> None:
    desk.rotate("a", revoke=True)
    files = [p for p in (desk.folder / "keys").rglob("*") if p.is_file() and "heads" not in p.parts]
    assert sorted(p.name for p in files if p.suffix == ".pem")[-1] == "key.pem"
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}


# -- a revoked key ----------------------------------------------------------------------------------------------------


def test_who_names_a_revoked_key_cannot_tell_here_and_elsewhere(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    old = desk.public
    desk.rotate("a", revoke=True)
    assert holds(desk.verify("a", desk.public))
    assert holds(desk.verify("a", None))
    mine = desk.verify("a", old)
    assert mine.exit_code == 3
    assert f"{old.hex()}, is one that you have revoked" in mine.notes[-1]
    monkeypatch.setenv("FGTRAC_KEY", str(desk.folder / "nobody.pem"))  # a stranger has no list
    theirs = desk.verify("a", old)
    assert theirs.exit_code == 3
    assert "revokes a key between the one that you named and the one that signed" in words_of(theirs, "signature")


def test_a_trace_left_under_a_revoked_key_cannot_be_told_until_it_is_moved(desk: Desk) -> None:
    old = desk.public
    desk.rotate("a", revoke=True)
    report = desk.verify("b", None)
    assert (report.exit_code, "is one that you have revoked" in report.notes[-1]) == (3, True)
    (moved,) = desk.rotate("b")
    assert moved.revoked  # although nobody said so this time: it is on the list
    assert holds(desk.verify("b", None))
    assert own_keys(desk.key).revoked == (old,)


def test_what_a_thief_signs_with_the_revoked_key_is_neither_sealed_nor_verified(desk: Desk) -> None:
    """He goes on from before the rotation, to a larger size than the owner's."""
    thief = Desk(desk.folder / "thief")
    shutil.copytree(desk.folder / "keys", thief.folder / "keys")
    for name in ("a.trace", "a.vault"):
        (shutil.copytree if name == "a.trace" else shutil.copy)(desk.folder / name, thief.folder / name)
    desk.rotate("a", revoke=True)
    with start_run(thief.path("a"), resume=True, key=thief.key, flush_interval_s=0) as run:
        for step in range(5):
            run.log(step, loss=0.0)
    shutil.rmtree(desk.path("a"))
    shutil.copytree(thief.path("a"), desk.path("a"))
    with pytest.raises(TamperError, match="is a fork of the one that was sealed"):
        seal_trace(desk.path("a"), desk.key)
    report = desk.verify("a", desk.public)
    assert (report.exit_code, "not by the key that you named" in words_of(report, "signature")) == (1, True)


@pytest.mark.parametrize("revoke", [False, True])
def test_a_bundle_leads_from_the_key_before_to_the_new_one_unless_it_is_revoked(
    desk: Desk, revoke: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = desk.public
    desk.rotate("a", revoke=revoke)
    bundle = desk.folder / "bundle.json"
    bundle.write_bytes(fgtrac.open(desk.path("a")).prove("TensorDataset:0"))
    for key in (desk.public.hex(), None):
        assert holds(verify_bundle(bundle, key))
    assert verify_bundle(bundle, "ab" * 32).exit_code == 1
    monkeypatch.setenv("FGTRAC_KEY", str(desk.folder / "nobody.pem"))
    report = verify_bundle(bundle, old.hex())
    code, words = (3, "(key) revokes a key") if revoke else (0, "(key), signed by the key that you named")
    assert (report.exit_code, words in words_of(report, "signature")) == (code, True)


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_trace_that_is_being_recorded_or_is_somebody_elses_is_refused_before_anything_changes(desk: Desk) -> None:
    other = Desk(desk.folder / "other")
    other.record("c")
    before = {p: p.read_bytes() for p in (desk.folder / "keys").rglob("*.pem")}
    recording = pytest.raises(CaptureError, match="is being recorded by a process now")
    with start_run(desk.path("b"), resume=True, key=desk.key, flush_interval_s=0), recording:
        desk.rotate("a", "b")
    with pytest.raises(ValueError, match=f"signed with the key {other.public.hex()}"):
        rotate([desk.path("a"), other.path("c")], path=desk.key)
    with pytest.raises(FileNotFoundError, match="there is no trace at"):
        desk.rotate("nowhere")
    with pytest.raises(FileNotFoundError, match="there is no key at"):
        rotate([desk.path("a")], path=desk.folder / "no.pem")
    assert {p: p.read_bytes() for p in (desk.folder / "keys").rglob("*.pem")} == before
    assert [e["kind"] for e in desk.entries("a")].count("key") == 0


def test_a_new_key_is_made_only_where_there_is_none(tmp_path: Path) -> None:
    path, public = new_key(tmp_path / "keys" / "key.pem")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert own_keys(path).present == public == public_bytes(load_key(path))
    with pytest.raises(FileExistsError, match="key rotate"):
        new_key(path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("key.pem.rotation", b"nothing"),
        ("key.pem.rotation", b"fgtrac rotation v1\nperhaps\n-----BEGIN PRIVATE KEY-----"),
        ("key.pem.rotation", b"fgtrac rotation v1\nkeep\n-----BEGIN PRIVATE KEY-----\n"),
        ("revoked", b"no key"),
        ("revoked", b"ab12"),
        ("retired/x.pem", b"no key"),
    ],
)
def test_damaged_files_of_keys_are_named(desk: Desk, name: str, data: bytes) -> None:
    path = desk.folder / "keys" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    with pytest.raises(FormatError, match=name):
        own_keys(desk.key)


def test_two_rotations_of_one_key_at_once_are_refused(desk: Desk) -> None:
    with Keyring(desk.key).rotating(), pytest.raises(BlockingIOError, match="is being rotated by another process"):
        desk.rotate("a")


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


@pytest.mark.filterwarnings("ignore:fgtrac.*a gap entry will say so:RuntimeWarning")
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
