"""`fgtrac key`, and each message about keys that `fgtrac verify` has: one line, and the documented exit code."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fgtrac.api.run import start_run
from fgtrac.commit.keys import Begun, Keyring, load_key, public_bytes
from fgtrac.tlog.note import Verifier, format_vkey

OTHER = "ab" * 32


class Desk:
    """A user with a key and a trace."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key, self.trace = folder, folder / "keys" / "key.pem", folder / "run.trace"

    @property
    def public(self) -> str:
        return public_bytes(load_key(self.key)).hex()


@pytest.fixture
def desk(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(tmp_path)
    monkeypatch.setenv("FGTRAC_KEY", str(made.key))
    assert run("key", "new").code == 0
    with start_run(made.trace, ids="public", flush_interval_s=0) as recording:
        recording.log(1, loss=1.0)
    return made


def finding(done, check: str) -> tuple[str, str]:
    (found,) = [(f["verdict"], f["words"]) for f in done.json["findings"] if f["check"] == check]
    return found


def test_a_key_is_made_shown_and_replaced(run, desk: Desk) -> None:
    first = desk.public
    assert stat.S_IMODE(desk.key.stat().st_mode) == 0o600
    assert run("key", "show", "--json").json == {
        "path": str(desk.key), "public_key": first, "retired": [], "revoked": [], "unfinished": [],
    }  # fmt: skip
    vkey = run("key", "show", "--vkey", desk.trace).out.strip()
    assert vkey == run("show", desk.trace, "--vkey").out.strip()
    done = run("key", "rotate", desk.trace, "--revoke", "--json").json
    assert done["public_key"] == desk.public != first
    assert [(t["old"], t["new"], t["revoked"]) for t in done["traces"]] == [(first, desk.public, True)]
    shown = run("key", "show").out
    assert f"retired  {first}, revoked" in shown
    assert desk.public in shown
    assert run("key", "show", "--vkey", desk.trace).out.strip() == run("show", desk.trace, "--vkey").out.strip() != vkey
    assert run("verify", desk.trace).code == 0


def test_a_rotation_says_what_it_did(run, desk: Desk) -> None:
    done = run("key", "rotate", desk.trace)
    assert done.code == 0
    assert done.out.startswith(f"{desk.trace} is now under {desk.public}, sealed at ")


def test_a_rotation_whose_trace_is_there_no_more_is_shown_and_finished_without_it(run, desk: Desk) -> None:
    Keyring(desk.key).begin(Begun(Ed25519PrivateKey.generate(), (desk.trace,), True))
    desk.trace.rename(desk.folder / "moved")
    shown = run("key", "show")
    assert (shown.code, shown.err) == (0, "")
    assert f"rotation of {desk.trace} (it is there no more, and will be left out) was begun; fgtrac key" in shown.out
    done = run("key", "rotate")
    assert (done.code, done.out) == (
        0, f"note: {desk.trace} is there no more and was left out; where you have it again, fgtrac key rotate it\n",
    )  # fmt: skip
    assert run("key", "show", "--json").json["unfinished"] == []


def test_a_revocation_says_which_key_it_is_of_and_which_it_does_not_reach(run, desk: Desk) -> None:
    first = desk.public
    run("key", "rotate", desk.trace)
    second = desk.public
    done = run("key", "rotate", desk.trace, "--revoke").out.splitlines()
    assert done[0].endswith(f"; its log revokes {second}")
    assert done[1].startswith(f"note: {first}, which signed it before that, is not revoked by its log")
    assert done[1].endswith(f"fgtrac key revoke {first}")
    assert run("key", "revoke", first, "--json").json == {"revoked": first}
    assert f"{first} is believed no longer here" in run("key", "revoke", first).out
    assert run("key", "show", "--json").json["revoked"] == sorted([first, second])
    again = run("key", "rotate", desk.trace, "--revoke", "--json").json  # the third, and the others are on the list
    assert (again["public_key"], again["gone"]) == (desk.public, [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["new"], "is there already; fgtrac key rotate"),
        (["rotate"], "no rotation was begun; name the traces"),
        (["revoke", OTHER], "is none of your retired keys; fgtrac key show lists them"),
        (["revoke", "nothing"], "is none of your retired keys"),
        (["rotate", "nowhere.trace"], "nowhere.trace; name a folder"),
        (["show", "--vkey", "nowhere.trace"], "there is no trace at"),
    ],
)
def test_mistakes_with_keys_are_one_line_and_exit_code_2(run, desk: Desk, arguments: list[str], words: str) -> None:
    done = run("key", *arguments)
    assert (done.code, words in done.err, done.err.count("\n")) == (2, True, 1), done


def test_without_a_key_there_is_nothing_to_show_or_rotate(run, tmp_path: Path) -> None:
    for arguments in (["show"], ["rotate", tmp_path]):
        done = run("key", *arguments)
        assert (done.code, "there is no key at" in done.err) == (2, True)


# -- each message -----------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_refuted_with_the_key_ids_of_those_who_signed(run, desk: Desk) -> None:
    done = run("verify", desk.trace, "--key", OTHER, "--json")
    verdict, words = finding(done, "signature")
    origin = words.split()[3]
    ids = [Verifier(origin, bytes.fromhex(key)).key_id.hex() for key in (desk.public, OTHER)]
    assert (done.code, verdict) == (1, "refuted")
    assert words == (
        f"checkpoint: signed by {origin} (key id {ids[0]}), not by the key that you named (key id {ids[1]}), and no "
        "key entry leads there"
    )


def test_a_key_of_another_log_is_refuted_with_both_origins(run, desk: Desk) -> None:
    vkey = format_vkey(Verifier("fgtrac/" + "00" * 16, bytes.fromhex(desk.public)))
    done = run("verify", desk.trace, "--key", vkey, "--json")
    verdict, words = finding(done, "signature")
    assert (done.code, verdict) == (1, "refuted")
    assert words.startswith("checkpoint: a head of the log 'fgtrac/")
    assert words.endswith(f"; the key that you named is for 'fgtrac/{'00' * 16}'")


def test_a_revoked_key_cannot_tell_to_its_owner_and_to_a_stranger(
    run, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = desk.public
    run("key", "rotate", desk.trace, "--revoke")
    mine = run("verify", desk.trace, "--key", first, "--json")
    assert mine.code == 3
    assert mine.json["notes"][-1] == (
        f"the key that you named, {first}, is one that you have revoked: whoever holds it can sign anything; name the "
        "key that took its place, and have a bundle from before the rotation made again"
    )
    monkeypatch.setenv("FGTRAC_KEY", str(desk.folder / "nobody.pem"))
    theirs = run("verify", desk.trace, "--key", first, "--json")
    assert (theirs.code, finding(theirs, "signature")[0]) == (3, "cannot tell")
    assert "get the new key from the log's owner and name that" in finding(theirs, "signature")[1]


def test_a_replaced_key_holds_through_its_entry_and_a_head_by_it_alone_is_refuted(run, desk: Desk) -> None:
    first, before = desk.public, (desk.trace / "checkpoint").read_bytes()
    run("key", "rotate", desk.trace)
    done = run("verify", desk.trace, "--key", first, "--json")
    assert (done.code, "through entry" in finding(done, "signature")[1]) == (0, True)
    (desk.trace / "checkpoint").write_bytes(before)
    assert run("verify", desk.trace, "--key", first).code == 1


@pytest.mark.parametrize("kind", ["rsa", "ec", "ec public"])
def test_a_key_of_another_kind_is_exit_code_2(run, desk: Desk, kind: str) -> None:
    private = generate_rsa(65537, 2048) if kind == "rsa" else generate_ec(SECP256R1())
    if kind == "ec public":
        pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    else:
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (desk.folder / "other.pem").write_bytes(pem)
    done = run("verify", desk.trace, "--key", desk.folder / "other.pem")
    assert (done.code, "; tree heads are signed with Ed25519" in done.err, done.err.count("\n")) == (2, True, 1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"-----BEGIN PRIVATE KEY-----\nnothing\n", "is no unencrypted PKCS8 key"),
        (b"-----BEGIN PUBLIC KEY-----\nnothing\n", "holds no PEM key"),
        (b"\xff\xfe", "holds no key"),
        (b"", "holds no key"),
        (b"ab" * 31, "bad holds no key: give 64 hex digits"),
        (b"a+b+c", "holds no key"),
        (b"a+00000000+" + base64.b64encode(b"\x01" + bytes(32)), "holds no key"),
        (b"a+00000000+" + base64.b64encode(b"\x09" + bytes(32)), "holds no key"),
    ],
)
def test_a_file_that_holds_no_key_is_exit_code_2_and_one_line(run, desk: Desk, data: bytes, words: str) -> None:
    (desk.folder / "bad").write_bytes(data)
    done = run("verify", desk.trace, "--key", desk.folder / "bad")
    assert (done.code, words in done.err, done.err.count("\n")) == (2, True, 1), done


def test_a_damaged_key_of_ones_own_is_exit_code_2(run, desk: Desk) -> None:
    desk.key.write_bytes(b"nothing")
    for arguments in (["verify", desk.trace], ["key", "show"], ["seal", desk.trace], ["key", "rotate", desk.trace]):
        done = run(*arguments)
        assert (done.code, "is no unencrypted PKCS8 key" in done.err) == (2, True), done


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_use_signs_nothing_until_its_mode_is_put_right(run, desk: Desk, mode: int) -> None:
    desk.key.chmod(mode)
    for arguments in (["key", "show"], ["seal", desk.trace], ["key", "rotate", desk.trace], ["verify", desk.trace]):
        done = run(*arguments)
        assert (done.code, f"has mode {mode:04o}" in done.err, f"chmod 600 {desk.key}" in done.err) == (2, True, True)
    assert run("verify", desk.trace, "--key", desk.key).code == 0  # for its public part anybody may read it
    desk.key.chmod(0o600)
    assert run("verify", desk.trace).code == 0


def test_a_retired_key_and_a_rotation_that_others_may_use_are_refused_too(run, desk: Desk) -> None:
    run("key", "rotate", desk.trace)
    ring = Keyring(desk.key)
    ring.begin(Begun(Ed25519PrivateKey.generate(), (desk.trace,), False))
    (retired,) = desk.key.parent.glob("retired/*.pem")
    for path in (retired, ring.rotation):
        path.chmod(0o644)
        done = run("key", "rotate")
        assert (done.code, f"chmod 600 {path}" in done.err) == (2, True), done
        path.chmod(0o600)
    assert run("key", "rotate").code == 0


# -- verify --since, --vault ------------------------------------------------------------------------------------------


def test_since_takes_a_note_a_bundle_a_proof_or_a_folder(run, life, tmp_path: Path) -> None:
    key = life.made.signer.public_key.hex()
    kept = tmp_path / "kept"
    kept.write_bytes((life.path / "checkpoint").read_bytes())
    run("prove", life.path, life.name(0), "-o", tmp_path / "bundle.json")
    run("export", "proof", life.path, "0", "-o", tmp_path / "0.tlog-proof")
    for name in ("kept", "bundle.json", "0.tlog-proof", life.path):  # the last one: the folder's own checkpoint
        done = run("verify", life.path, "--key", key, "--since", tmp_path / name, "--json")
        assert finding(done, "since")[0] == "holds", done
    done = run("verify", life.path, "--since", kept, "--json")  # no key, so nobody vouches for either head
    assert finding(done, "since") == ("cannot tell", "not checked, since the check of signature does not hold")


def test_a_file_that_holds_no_head_and_options_of_a_trace_for_a_bundle_are_exit_code_2(
    run, life, tmp_path: Path
) -> None:
    key = life.made.signer.public_key.hex()
    (tmp_path / "bad").write_bytes(b"nothing")
    (tmp_path / "empty").touch()
    run("prove", life.path, life.name(0), "-o", tmp_path / "bundle.json")
    for name in ("bad", "empty", "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        done = run("verify", life.path, "--since", tmp_path / name, "--key", key)
        words = (
            f"older head at {tmp_path}/folder/checkpoint"
            if name == "folder"
            else f"{tmp_path}/{name} holds no older head"
        )
        assert (done.code, words in done.err, "a copy of a checkpoint" in done.err) == (2, True, True), done
    for arguments in (
        [life.path, "--since", tmp_path / "bad"],
        [life.path, "--since", tmp_path / "nowhere"],
        [life.path, "--vault", tmp_path / "bad"],
        [life.path, "--vault", tmp_path / "nowhere"],
        [tmp_path / "bundle.json", "--since", tmp_path / "bundle.json"],
        [tmp_path / "bundle.json", "--vault", tmp_path / "bad"],
    ):
        done = run("verify", *arguments, "--key", key)
        assert (done.code, done.err.count("\n"), done.out) == (2, 1, ""), done


def test_vault_answers_with_the_other_checks(run, desk: Desk) -> None:
    done = run("verify", desk.trace, "--vault", desk.trace.with_suffix(".vault"), "--json")
    assert (done.code, finding(done, "vault")[0]) == (0, "holds")
