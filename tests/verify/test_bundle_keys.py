"""A bundle of a log whose signing key was replaced or revoked: its `key` entries go with it, all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.query.prove import Proof
from fgtrac.query.seals import open_full_seal
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import Verifier
from fgtrac.tlog.tiles import decode_bundle
from fgtrac.verify.bundle import Bundle, parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.keys import rotation_message
from fgtrac.verify.report import Finding, Verdict
from proofs import prove, refuting
from signed import IDS, KEY, ORIGIN, TRACE_ID, Event, end, note, put_files, run, samples, seal, use, write

NEXT = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
THIRD = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)


def key(old: Ed25519PrivateKey, new: Ed25519PrivateKey, *, revoked: bool = False) -> Event:
    keys = [k.public_key().public_bytes_raw() for k in (old, new)]
    message = rotation_message(TRACE_ID, *keys, revoked)
    signatures = {"old_signature": old.sign(message), "new_signature": new.sign(message)}
    return {"kind": "key", "public_key": keys[1], **signatures, **({"revoked": True} if revoked else {})}


def rotated(folder: Path, *, revoked: bool = False, signer: Ed25519PrivateKey = THIRD) -> Bundle:
    """A use, under a head that is signed by the second key after the first."""
    rotations = (key(KEY, NEXT, revoked=revoked), key(NEXT, THIRD))
    files = write(run(), samples(), rotations[0], use(1, 0), rotations[1], end(), seal())
    signed = note(decode_bundle(files["tile/entries/000.p/7"], 7), 7, signer)
    put_files(folder / "run.trace", files | {"checkpoint": signed, "index/7/checkpoint": signed})
    return parse_bundle(prove(open_full_seal(TraceDir.open(folder / "run.trace")), Proof(IDS[0]), "used"))


def verifier_of(named: Ed25519PrivateKey) -> Verifier:
    return Verifier(ORIGIN, named.public_key().public_bytes_raw())


def signature(bundle: Bundle, named: Ed25519PrivateKey) -> Finding:
    return next(f for f in check_bundle(bundle, verifier_of(named)).findings if f.check == "signature")


def test_who_trusts_any_key_of_the_chain_is_led_to_the_one_that_signed(tmp_path: Path) -> None:
    bundle = rotated(tmp_path)
    assert [e.number for e in bundle.entries] == [2, 4]
    for named, through in ((KEY, "through entries 2, 4 (key)"), (NEXT, "through entry 4 (key)"), (THIRD, "signed by")):
        assert through in signature(bundle, named).words
        assert check_bundle(bundle, verifier_of(named)).verdict is Verdict.HOLDS


def test_who_trusts_a_revoked_key_cannot_tell(tmp_path: Path) -> None:
    bundle = rotated(tmp_path, revoked=True)
    assert signature(bundle, KEY).verdict is Verdict.CANNOT_TELL
    assert check_bundle(bundle, verifier_of(KEY)).verdict is Verdict.CANNOT_TELL
    for named in (NEXT, THIRD):
        assert check_bundle(bundle, verifier_of(named)).verdict is Verdict.HOLDS


def test_a_stranger_s_key_is_refuted(tmp_path: Path) -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
    assert refuting(rotated(tmp_path), verifier_of(stranger)) == ["signature"]
    forged = rotated(tmp_path / "b", signer=stranger)
    for named in (KEY, NEXT, THIRD, stranger):
        assert refuting(forged, verifier_of(named)) == ["signature"]


@pytest.mark.parametrize("older", [KEY, NEXT], ids=["the first", "the second"])
def test_a_head_that_an_older_key_signed_is_refuted(tmp_path: Path, older: Ed25519PrivateKey) -> None:
    bundle = rotated(tmp_path, signer=older)
    for named in (KEY, NEXT, THIRD):
        assert refuting(bundle, verifier_of(named)) == ["signature"]


def test_no_key_entry_can_be_left_out(tmp_path: Path) -> None:
    bundle = rotated(tmp_path)
    for entries in ((), bundle.entries[:1], bundle.entries[1:]):
        assert refuting(replace(bundle, entries=entries), verifier_of(KEY)) == ["entries"]
