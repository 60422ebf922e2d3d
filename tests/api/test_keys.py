"""Rotating the signing key on real traces: who can verify before and after, and what is refused."""

from __future__ import annotations

import itertools
import shutil
import stat
from pathlib import Path

import pytest

import fgtrac
from desks import Desk, holds
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.keys import new_key, own_keys, own_vkey, revoke_key, rotate
from fgtrac.api.run import start_run
from fgtrac.api.sealing import seal_trace
from fgtrac.commit.keys import Keyring, load_key, public_bytes
from fgtrac.errors import CaptureError, FormatError, TamperError
from fgtrac.events.schema import encode_event
from fgtrac.store import durable
from fgtrac.store.journal import encode_frame
from findings import words_of
from traces import files_of

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
    durable.write_file(path, data, mode=0o600)
    with pytest.raises(FormatError, match=name):
        own_keys(desk.key)


def test_two_rotations_of_one_key_at_once_are_refused(desk: Desk) -> None:
    with Keyring(desk.key).rotating(), pytest.raises(BlockingIOError, match="is being rotated by another process"):
        desk.rotate("a")


# -- a theft that is noticed late -------------------------------------------------------------------------------------


def test_a_retired_key_can_be_revoked_here_and_in_the_logs_that_it_still_signs_only(desk: Desk) -> None:
    first = desk.public
    desk.rotate("a")
    second = desk.public
    (done,) = desk.rotate("a", revoke=True)  # which revokes the second key: the log says that the first was replaced
    assert (done.old, done.revoked, done.unrevoked) == (second, True, (first,))
    assert own_keys(desk.key).revoked == (second,)
    for wrong in (desk.public.hex(), "ab" * 32, "nothing"):
        with pytest.raises(
            ValueError, match=r"present key; fgtrac key rotate|none of your retired keys; fgtrac key show"
        ):
            revoke_key(wrong, desk.key)
    assert revoke_key(first.hex().upper(), desk.key) == first
    assert own_keys(desk.key).revoked == tuple(sorted((first, second)))
    assert desk.verify("b", first).exit_code == 3
    (moved,) = desk.rotate("b")
    assert (moved.old, moved.revoked, moved.unrevoked) == (first, True, ())
