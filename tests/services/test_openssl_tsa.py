"""Time stamps by a real responder: the whole way, and `openssl ts -verify` beside our own check on each kind of lie."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from authorities import Identity, authority_rights, issue, make_root, pem
from cosigned import prover, signed_head
from fgtrac.anchor.rfc3161 import TimeStampAuthority, check_stamp, read_roots, read_stamp
from fgtrac.errors import AnchorError, FormatError, ProofError, RefusedError
from fgtrac.store import durable
from fgtrac.verify.checks import CannotTell
from services.openssl_tsa import Sent, running_tsa, stamped
from stamps_by_hand import (
    attribute,
    der,
    issuer_serial,
    names_by_sha1,
    names_certificate,
    number,
    stamp,
    unknown_extension,
)

ENTRIES = [b"entry 0", b"entry 1"]
HEAD, PROVE = signed_head(ENTRIES, 2), prover(ENTRIES, 2)
ROOT = make_root()
SIGNER = issue("tsa", ROOT)
NUMBER = SIGNER.certificate.serial_number
SERVERS = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)


def openssl_holds(folder: Path, token: bytes, root: Path, note: bytes = HEAD.note) -> bool:
    """What `openssl ts -verify` says, at the time that was stamped."""
    durable.write_file(folder / "token.tsr", token)
    durable.write_file(folder / "checkpoint", note)
    try:
        at = int(read_stamp(token).time.timestamp())
    except (FormatError, ProofError, CannotTell):
        at = int(time.time())
    command = ["openssl", "ts", "-verify", "-in", "token.tsr", "-data", "checkpoint", "-CAfile", str(root)]
    done = subprocess.run([*command, "-attime", str(at)], cwd=folder, capture_output=True, check=False, timeout=20)
    assert (done.returncode == 0) == (b"Verification: OK" in done.stdout)
    return done.returncode == 0


def ours(token: bytes, root: Path, note: bytes = HEAD.note) -> str:
    """holds, refuted or cannot tell."""
    try:
        check_stamp(token, note, read_roots(root))
    except CannotTell:
        return "cannot tell"
    except (FormatError, ProofError):
        return "refuted"
    return "holds"


@pytest.mark.parametrize("is_rsa", [False, True], ids=["P-256", "RSA with an intermediate"])
def test_a_head_is_stamped_and_both_checks_agree(tmp_path: Path, is_rsa: bool) -> None:
    began = int(time.time())
    with running_tsa(tmp_path / "tsa", is_rsa=is_rsa) as tsa:
        _, token = TimeStampAuthority(tsa.url, timeout_s=20).anchor(HEAD, PROVE)
    checked = check_stamp(token, HEAD.note, read_roots(tsa.root))
    assert began <= checked.time.timestamp() <= time.time() + 1
    assert openssl_holds(tmp_path, token, tsa.root)
    for note in (HEAD.note + b" ", signed_head(ENTRIES, 1).note):
        assert ours(token, tsa.root, note) == "refuted"
        assert not openssl_holds(tmp_path, token, tsa.root, note)


def test_a_foreign_root_of_the_same_name_is_nobody(tmp_path: Path) -> None:
    with running_tsa(tmp_path / "one") as tsa, running_tsa(tmp_path / "two") as other:
        _, token = TimeStampAuthority(tsa.url).anchor(HEAD, PROVE)
    assert ours(token, other.root) == "cannot tell"
    assert not openssl_holds(tmp_path, token, other.root)


def test_an_expired_certificate_is_refuted_and_its_stamp_not_taken(tmp_path: Path) -> None:
    with running_tsa(tmp_path / "tsa", is_expired=True) as tsa, pytest.raises(AnchorError, match="had expired when"):
        TimeStampAuthority(tsa.url).anchor(HEAD, PROVE)
    token = stamped(tmp_path / "tsa", HEAD.note)
    assert ours(token, tsa.root) == "refuted"
    assert not openssl_holds(tmp_path, token, tsa.root)


def test_a_real_rejection_is_a_refusal_in_the_authoritys_words(tmp_path: Path) -> None:
    words = "refused to stamp: rejection; unrecognized .*; 'Message digest algorithm is not supported.'"
    with running_tsa(tmp_path / "tsa", digests="sha512") as tsa, pytest.raises(RefusedError, match=words):
        TimeStampAuthority(tsa.url).anchor(HEAD, PROVE)


def slow(query: bytes, reply: bytes) -> bytes:
    time.sleep(1)
    return reply


def test_bad_answers_are_anchor_errors_and_the_next_good_one_is_taken(tmp_path: Path) -> None:
    answers: dict[str, Callable[[bytes, bytes], Sent]] = {
        "did not answer within 0.5 s": slow,
        "no time stamp that can be used": lambda query, reply: reply[:-1],
        "HTTP status 503": lambda query, reply: (503, "text/plain", b"busy"),
        "answers with 'text/plain'": lambda query, reply: (200, "text/plain", reply),
    }
    with running_tsa(tmp_path / "tsa") as tsa:
        honest = tsa.answer
        for words, tsa.answer in answers.items():
            with pytest.raises(AnchorError, match=words):
                TimeStampAuthority(tsa.url, timeout_s=0.5).anchor(HEAD, PROVE)
        tsa.answer = honest
        first = TimeStampAuthority(tsa.url).anchor(HEAD, PROVE)[1]
        tsa.answer = lambda query, reply: first
        with pytest.raises(AnchorError, match="answered another query"):
            TimeStampAuthority(tsa.url).anchor(HEAD, PROVE)


def through(rights: list[tuple[x509.ExtensionType, bool]]) -> bytes:
    between = issue("between", ROOT, extensions=rights)
    return stamp(HEAD.note, issue("tsa", between), [between.certificate])


def naming(*above: x509.Certificate, behind: bytes = b"") -> bytes:
    """A stamp that signs which certificates are its signer's and above it."""
    names = names_certificate(SIGNER.certificate, *above, behind=behind)
    return stamp(HEAD.note, SIGNER, named=None, more_attributes=[names])


def naming_again(attribute: bytes) -> bytes:
    """A stamp that signs its signer's certificate, and once more which that is."""
    return stamp(HEAD.note, SIGNER, more_attributes=[attribute])


NAMES_NOTHING = attribute("certificate", der(0x30, der(0x30, der(0x30, der(4, bytes(32))))))  # sorted, it is the first


def said_by(authority: Identity) -> bytes:
    return stamp(HEAD.note, SIGNER, behind=der(0xA0, der(0xA4, authority.certificate.subject.public_bytes())))


BOTH = {  # by hand: whether it holds, for both
    "as it should be": (lambda: stamp(HEAD.note, SIGNER), True),
    "over SHA-512": (lambda: stamp(HEAD.note, SIGNER, digest="sha512", signed_over="sha512"), True),
    "through an intermediate": (lambda: through([*authority_rights(0)]), True),
    "certificates in another order": (lambda: stamp(HEAD.note, SIGNER, [ROOT.certificate], in_order=False), True),
    "through no authority": (lambda: through([]), False),
    "over other bytes": (lambda: stamp(b"x", SIGNER), False),
    "not granted": (lambda: stamp(HEAD.note, SIGNER, status=2), False),
    "signed by another key": (lambda: stamp(HEAD.note, Identity(SIGNER.certificate, ROOT.key)), False),
    "naming no certificate": (lambda: stamp(HEAD.note, SIGNER, named=None), False),
    "naming another certificate": (lambda: stamp(HEAD.note, SIGNER, named=ROOT.certificate), False),
    "naming another issuer": (lambda: naming(behind=issuer_serial(x509.Name([]), NUMBER)), False),
    "naming another number": (lambda: naming(behind=issuer_serial(ROOT.certificate.subject, NUMBER + 1)), False),
    "naming issuer and number": (lambda: naming(behind=issuer_serial(ROOT.certificate.subject, NUMBER)), True),
    "naming its root too": (lambda: naming(ROOT.certificate), True),
    "naming a certificate that is not there": (lambda: naming(make_root().certificate), False),
    "naming another one by SHA-1": (lambda: naming_again(names_by_sha1(ROOT.certificate)), False),
    "naming it by SHA-1 too": (lambda: naming_again(names_by_sha1(SIGNER.certificate)), True),
    "naming two, the wrong one first": (lambda: naming_again(NAMES_NOTHING), False),
    "of version 2": (lambda: stamp(HEAD.note, SIGNER, version=2), False),
    "by its certificate's subject": (lambda: said_by(SIGNER), True),
    "by another": (lambda: said_by(ROOT), False),
    "with an extension": (lambda: stamp(HEAD.note, SIGNER, behind=unknown_extension(False)), True),
    "exact to a fraction": (lambda: stamp(HEAD.note, SIGNER, accuracy=der(0x30, der(0x80, b"\5"))), True),
    "not for time stamps": (lambda: stamp(HEAD.note, issue("tsa", ROOT, extensions=[])), False),
    "another root's": (lambda: stamp(HEAD.note, issue("tsa", make_root())), False),
}  # fmt: skip
STRICTER = {  # where ours does not hold, and OpenSSL's does
    "signed over SHA-1": lambda: stamp(HEAD.note, SIGNER, signed_over="sha1"),
    "granted with modifications": lambda: stamp(HEAD.note, SIGNER, status=1),
    "without a content type": lambda: stamp(HEAD.note, SIGNER, content_type=None),
    "of another content type": lambda: stamp(HEAD.note, SIGNER, content_type="data"),
    "with a critical extension": lambda: stamp(HEAD.note, SIGNER, behind=unknown_extension(True)),
    "through an authority for servers": lambda: through([*authority_rights(), SERVERS]),
    "a fraction that ends with 0": lambda: stamp(HEAD.note, SIGNER, when="20260102030405.50Z"),
    "a time that is none": lambda: stamp(HEAD.note, SIGNER, when="20261302030405Z"),
    "5,000 ms": lambda: stamp(HEAD.note, SIGNER, accuracy=der(0x30, der(0x80, b"\x13\x88"))),
    "exact to 10^400 s": lambda: stamp(HEAD.note, SIGNER, accuracy=der(0x30, number(10**400))),
}


@pytest.mark.parametrize("case", BOTH)
def test_openssl_and_our_check_agree_on_stamps_made_by_hand(tmp_path: Path, case: str) -> None:
    make, holds = BOTH[case]
    token, root = make(), tmp_path / "root.pem"
    durable.write_file(root, pem(ROOT.certificate))
    assert (ours(token, root) == "holds", openssl_holds(tmp_path, token, root)) == (holds, holds)


@pytest.mark.parametrize("case", STRICTER)
def test_our_check_is_stricter_where_it_says_so(tmp_path: Path, case: str) -> None:
    token, root = STRICTER[case](), tmp_path / "root.pem"
    durable.write_file(root, pem(ROOT.certificate))
    assert ours(token, root) != "holds"
    assert openssl_holds(tmp_path, token, root)


def test_what_holds_with_a_changed_bit_holds_for_openssl_too(tmp_path: Path) -> None:
    with running_tsa(tmp_path / "tsa") as tsa:
        token = bytearray(TimeStampAuthority(tsa.url).anchor(HEAD, PROVE)[1])
    ours_holds = openssl_differs = 0
    for bit in range(0, 8 * len(token), 61):
        token[bit // 8] ^= 1 << bit % 8
        changed = bytes(token)
        token[bit // 8] ^= 1 << bit % 8
        openssl = openssl_holds(tmp_path, changed, tsa.root)
        if ours(changed, tsa.root) == "holds":
            ours_holds += 1
            assert openssl, f"bit {bit}"
        else:
            openssl_differs += openssl  # it overlooks more fields that are not signed, as the case of letters in names
    assert ours_holds + openssl_differs < 8
