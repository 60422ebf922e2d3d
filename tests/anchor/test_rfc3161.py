"""Time stamps checked: real ones by OpenSSL (`make_stamps.py`), and others made by hand with any one thing wrong."""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from authorities import STAMPS_ONLY, Identity, authority_rights, issue, make_root
from fgtrac.anchor.der import read_elements
from fgtrac.anchor.rfc3161 import CheckedStamp, check_alone, check_stamp, read_roots, read_stamp
from fgtrac.anchor.stamp_reply import read_reply
from fgtrac.errors import FormatError, ProofError
from fgtrac.verify.checks import CannotTell
from stamps_by_hand import (
    WHEN,
    attribute,
    der,
    issuer_serial,
    names_by_sha1,
    names_certificate,
    number,
    oid,
    rejection,
    stamp,
    unknown_extension,
)

STAMPS = Path(__file__).parent / "stamps"
NOTE = (STAMPS / "checkpoint").read_bytes()
ROOT = make_root()
OTHER_ROOT = make_root()  # of the same name
SIGNER = issue("tsa", ROOT)
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
BEFORE, AFTER = WHEN - timedelta(days=1), WHEN + timedelta(days=1)


def real(name: str) -> bytes:
    return (STAMPS / f"{name}.tsr").read_bytes()


def real_root(name: str) -> tuple[x509.Certificate, ...]:
    return read_roots(STAMPS / f"{name}-root.pem")


def check(token: bytes, *named: Identity) -> CheckedStamp:
    return check_stamp(token, NOTE, [identity.certificate for identity in named or (ROOT,)])


@pytest.mark.parametrize("name", ["p256", "rsa", "p256-by-sha1"])
def test_a_real_stamp_says_when_by_whom_and_under_which_root(name: str) -> None:
    checked = check_stamp(real(name), NOTE, real_root(name.split("-")[0]))
    read = read_stamp(real(name))
    assert (checked.time, checked.imprint, checked.by) == (read.time, read.imprint, read.by)
    assert (checked.by, checked.root, checked.accuracy_s) == ("CN=test authority", "CN=test root", 1.5001)
    assert checked.until == datetime(2120, 1, 1, tzinfo=UTC)


def test_the_fraction_of_a_second_that_a_stamp_says_is_kept() -> None:
    assert read_stamp(real("p256")).time.microsecond > 0
    assert check(stamp(NOTE, SIGNER, when="20260102030405.5Z")).time == WHEN + timedelta(seconds=0.5)


def test_a_real_stamp_leads_to_no_other_root_of_the_same_name() -> None:
    with pytest.raises(CannotTell, match="not signed by the key of CN=test root that is there; name the root"):
        check_stamp(real("p256"), NOTE, real_root("rsa"))


def test_a_real_stamp_by_an_expired_certificate_is_refuted() -> None:
    with pytest.raises(ProofError, match=r"expired when the time was stamped: valid from 2020-01-01 .* to 2021-01-01"):
        check_stamp(real("expired"), NOTE, real_root("expired"))


def test_a_real_signature_over_sha_1_is_not_accepted() -> None:
    with pytest.raises(CannotTell, match="signed in a way that is not accepted"):
        check_stamp(real("p256-over-sha1"), NOTE, real_root("p256"))


def test_a_real_rejection_is_no_time_stamp() -> None:
    with pytest.raises(FormatError, match="no time stamp: rejection; unrecognized or unsupported algorithm; 'Message"):
        read_stamp(real("p256-rejection"))


def test_a_real_stamp_over_other_bytes_is_refuted_with_both_digests() -> None:
    with pytest.raises(ProofError, match=r"over other bytes: sha256 [0-9a-f]{64}, and the head's is [0-9a-f]{64}$"):
        check_stamp(real("p256"), NOTE + b" ", real_root("p256"))


def test_certificates_in_another_order_than_ders_are_put_in_order() -> None:
    reply = read_reply(real("rsa"))  # as OpenSSL wrote it: the signer first
    assert reply.ordered != real("rsa")
    assert sorted(reply.ordered) == sorted(real("rsa"))
    intermediate = issue("between", ROOT, extensions=authority_rights())
    signer = issue("tsa", intermediate)
    tokens = {stamp(NOTE, signer, [intermediate.certificate], in_order=order) for order in (False, True)}
    assert len({check(token) for token in tokens}) == 1


@pytest.mark.parametrize("name", ["p256", "rsa"])
def test_no_changed_bit_of_a_real_stamp_makes_it_say_anything_else(name: str) -> None:
    token, roots = bytearray(real(name)), real_root(name)
    honest = check_stamp(bytes(token), NOTE, roots)
    unsigned = set()
    for bit in range(0, 8 * len(token), 1 if name == "p256" else 11):
        token[bit // 8] ^= 1 << bit % 8
        with suppress(FormatError, ProofError, CannotTell):
            assert check_stamp(bytes(token), NOTE, roots) == honest, f"bit {bit}"
            unsigned.add(bit // 8)
        token[bit // 8] ^= 1 << bit % 8
    assert len(unsigned) < 12  # versions and the like, which say nothing


@pytest.mark.parametrize("key", [None, RSA_KEY], ids=["P-256", "RSA"])
@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_a_stamp_made_by_hand_holds_as_it_should_be(key: rsa.RSAPrivateKey | None, digest: str) -> None:
    signer = issue("tsa", ROOT, key=key)
    checked = check(stamp(NOTE, signer, digest=digest, signed_over=digest), OTHER_ROOT, ROOT)
    assert (checked.time, checked.accuracy_s, checked.by, checked.root) == (WHEN, None, "CN=tsa", "CN=test root")


LIES = {
    "over other bytes": (lambda: stamp(b"x", SIGNER), ProofError, "over other bytes"),
    "not granted": (lambda: stamp(NOTE, SIGNER, status=2), ProofError, "not granted: rejection"),
    "granted with modifications": (lambda: stamp(NOTE, SIGNER, status=1), ProofError, "not granted: granted with mod"),
    "over MD5": (lambda: stamp(NOTE, SIGNER, digest="md5"), CannotTell, "over a MD5 digest"),
    "over SHA-1": (lambda: stamp(NOTE, SIGNER, digest="sha1"), CannotTell, "over a SHA-1 digest"),
    "signed over SHA-1": (lambda: stamp(NOTE, SIGNER, signed_over="sha1"), CannotTell, "a way that is not accepted"),
    "signed by Ed25519": (lambda: stamp(NOTE, SIGNER, signed_by="ed25519"), CannotTell, "a way that is not accepted"),
    "signed by another key": (
        lambda: stamp(NOTE, Identity(SIGNER.certificate, OTHER_ROOT.key)), ProofError, "altered: its signature",
    ),
    "naming no certificate": (lambda: stamp(NOTE, SIGNER, named=None), ProofError, "does not sign which certificate"),
    "naming another certificate of the key": (
        lambda: stamp(NOTE, SIGNER, named=issue("tsa", ROOT, key=SIGNER.key).certificate), ProofError,
        "altered, or is not signed by CN=tsa: the certificate it signs has the digest",
    ),
    "naming another number": (
        lambda: stamp(NOTE, SIGNER, named=None, more_attributes=[named_beside(number=1)]), ProofError,
        "signs another issuer or number than its certificate has, CN=tsa",
    ),
    "naming another issuer": (
        lambda: stamp(NOTE, SIGNER, named=None, more_attributes=[named_beside(issuer="CN=other")]), ProofError,
        "signs another issuer or number than its certificate has, CN=tsa",
    ),
    "naming two issuers": (
        lambda: stamp(NOTE, SIGNER, named=None, more_attributes=[named_beside(copies=2)]), FormatError,
        "names several issuers",
    ),
    "naming no issuer beside the number": (
        lambda: stamp(NOTE, SIGNER, named=None, more_attributes=[named_beside(copies=0)]), FormatError, "tags a4",
    ),
    "naming another certificate by SHA-1": (
        lambda: stamp(NOTE, SIGNER, more_attributes=[names_by_sha1(ROOT.certificate)]), ProofError,
        "altered, or is not signed by CN=tsa: the certificate it signs has the digest [0-9a-f]{40},",
    ),
    "naming certificates twice": (
        lambda: stamp(NOTE, SIGNER, more_attributes=[names_certificate(ROOT.certificate)]), FormatError,
        "signs twice what it is",
    ),
    "naming certificates in two values": (
        lambda: stamp(NOTE, SIGNER, named=None, more_attributes=[with_two_values()]), FormatError, "signs twice what",
    ),
    "naming no certificate in a list": (
        lambda: stamp(NOTE, SIGNER, named=der(0x30, der(0x30))), FormatError, "tags 30 are expected",
    ),
    "naming a certificate by MD5": (
        lambda: stamp(NOTE, SIGNER, named=der(0x30, der(0x30, der(0x30, der(0x30, oid("md5")), der(4, bytes(16)))))),
        CannotTell, "by a digest that is not supported",
    ),
    "naming a certificate that is not on the way": (
        lambda: stamp(NOTE, SIGNER, more_attributes=[names_certificate(SIGNER.certificate, OTHER_ROOT.certificate)],
                      named=None), CannotTell, "names a certificate above its signer's, of the digest [0-9a-f]{64}, ",
    ),
    "naming a certificate on the way by another number": (
        lambda: stamp(NOTE, SIGNER, named=None, more_attributes=[
            names_certificate(SIGNER.certificate, ROOT.certificate, behind_above=issuer_serial(x509.Name([]), 1))]),
        CannotTell, "names a certificate above its signer's",
    ),
    "naming a certificate by the older attribute as by the newer": (
        lambda: stamp(NOTE, SIGNER, more_attributes=[names_by_sha1(SIGNER.certificate, before=der(0x30, oid("sha1")))]),
        FormatError, "something other than a hash",
    ),
    "by a key of a kind that signs otherwise": (
        lambda: stamp(NOTE, Identity(issue("tsa", ROOT, key=ED25519).certificate, ROOT.key)), CannotTell,
        "a way that is not accepted",
    ),
    "by a key on an unknown curve": (
        lambda: stamp(NOTE, on_unknown_curve(SIGNER)), CannotTell, "a way that is not accepted",
    ),
    "no content type": (lambda: stamp(NOTE, SIGNER, content_type=None), FormatError, "signs that it is one"),
    "another content type": (lambda: stamp(NOTE, SIGNER, content_type="data"), FormatError, "signs that it is one"),
    "version 2": (lambda: stamp(NOTE, SIGNER, version=2), FormatError, "of version 1, and this one of 2"),
    "a critical extension": (
        lambda: stamp(NOTE, SIGNER, behind=unknown_extension(True)), CannotTell, "has a critical extension",
    ),
    "another's name": (
        lambda: stamp(NOTE, SIGNER, behind=der(0xA0, der(0xA4, ROOT.certificate.subject.public_bytes()))), ProofError,
        "says that it is by CN=test root, and its certificate is another's: CN=tsa",
    ),
    "another's host": (
        lambda: stamp(NOTE, SIGNER, behind=der(0xA0, der(0x82, b"tsa.example"))), ProofError,
        "says that it is by b'tsa.example', and its certificate is another's: CN=tsa",
    ),
    "an accuracy below 0": (lambda: stamp(NOTE, SIGNER, accuracy=der(0x30, number(-1))), FormatError, "accuracy is"),
    "an accuracy of 10^400 s": (
        lambda: stamp(NOTE, SIGNER, accuracy=der(0x30, number(10**400))), FormatError, "accuracy is",
    ),
    "with broken extensions": (
        lambda: stamp(NOTE, issue("tsa", ROOT, extensions=[(BROKEN_PURPOSES, True)])), ProofError,
        "the certificate of CN=tsa has broken extensions",
    ),
    "with two certificates of one number": (
        lambda: stamp(NOTE, SIGNER, [twin(SIGNER)]), ProofError, "carries 2 certificates of the signer",
    ),
    "with another certificate only": (
        lambda: stamp(NOTE, SIGNER, [ROOT.certificate], carries_signer=False), ProofError, "carries 0 certificates",
    ),
    "without certificates": (lambda: stamp(NOTE, SIGNER, carries_signer=False), CannotTell, "not supported"),
    "signer by key": (lambda: stamp(NOTE, SIGNER, by_key=True), CannotTell, "names its signer by key"),
    "17 certificates": (lambda: stamp(NOTE, SIGNER, [ROOT.certificate] * 16), FormatError, "carries 17 certificates"),
    "certificates twice": (lambda: with_its_certificates_as_text(), FormatError, "certificates stand in it twice"),
    "no signed attributes": (
        lambda: stamp(NOTE, SIGNER, has_attributes=False), FormatError, "has a digest algorithm, signed attributes",
    ),
    "naming a certificate by nothing": (
        lambda: stamp(NOTE, SIGNER, named=der(0x30, der(0x30, der(0x30)))), FormatError, "something other than a hash",
    ),
    "two signers": (lambda: stamp(NOTE, SIGNER, signers=2), FormatError, "exactly one signer"),
    "a month 13": (lambda: stamp(NOTE, SIGNER, when="20261302030405Z"), FormatError, "no time stamp"),
    "no Zulu time": (lambda: stamp(NOTE, SIGNER, when="20260102030405"), FormatError, "no time of a time stamp"),
    "no token": (lambda: rejection(), FormatError, "holds no time stamp: rejection; 'no'"),
    "nothing": (lambda: b"", FormatError, "not one DER sequence"),
    "more behind it": (lambda: stamp(NOTE, SIGNER) + b"\0", FormatError, "no DER element"),
    "a name in bits": (lambda: stamp(NOTE, SIGNER).replace(b"\x0c\x09test", b"\x03\x09test"), FormatError, "no time"),
    "too much": (lambda: der(0x30, bytes(65_536)), FormatError, "at most 65,536"),
}  # fmt: skip


ED25519: Any = Ed25519PrivateKey.generate()
BROKEN_PURPOSES = x509.UnrecognizedExtension(x509.ExtendedKeyUsage.oid, b"\x05\0")


def named_beside(issuer: str = "", number: int = 0, copies: int = 1) -> bytes:
    """The attribute that names SIGNER's certificate, with an issuer (its own where none is given) and a number."""
    name = x509.Name.from_rfc4514_string(issuer) if issuer else SIGNER.certificate.issuer
    right = issuer_serial(name, number or SIGNER.certificate.serial_number)
    (names, serial) = read_elements(right)[0].parts()
    return names_certificate(SIGNER.certificate, behind=der(0x30, der(0x30, names.content * copies), serial.raw))


def with_two_values() -> bytes:
    kind, values = read_elements(names_certificate(SIGNER.certificate))[0].parts()
    return der(0x30, kind.raw, der(0x31, values.content * 2))


def on_unknown_curve(identity: Identity) -> Identity:
    """The certificate of a key that no library here knows."""
    p256, p239 = (bytes.fromhex("06082a8648ce3d0301" + end) for end in ("07", "06"))
    der = identity.certificate.public_bytes(Encoding.DER)
    assert der.count(p256) == 1
    return Identity(x509.load_der_x509_certificate(der.replace(p256, p239)), identity.key)


def twin(identity: Identity) -> x509.Certificate:
    """Another certificate with the same issuer and serial number."""
    return (
        x509.CertificateBuilder(
            identity.certificate.issuer, x509.Name([]), OTHER_ROOT.key.public_key(), identity.certificate.serial_number,
            BEFORE, AFTER,
        ).sign(OTHER_ROOT.key, hashes.SHA256())
    )  # fmt: skip


def with_its_certificates_as_text() -> bytes:
    """A stamp with unordered certificates, whose bytes stand in the status too."""
    status, token = read_elements(stamp(NOTE, SIGNER, [ROOT.certificate], in_order=False))[0].parts()
    certificates = token.parts()[1].parts()[0].parts()[3]
    text = der(0x30, der(0x0C, certificates.content))
    return der(0x30, der(0x30, status.content, text), token.raw)


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_about_a_stamp_has_its_own_answer(lie: str) -> None:
    token, error, words = LIES[lie]
    with pytest.raises(error, match=words):
        check(token())


def test_a_stamp_may_say_more_where_that_is_true() -> None:
    inter = issue("inter", ROOT, extensions=authority_rights())
    signer = issue("tsa", inter)
    named = names_certificate(signer.certificate, ROOT.certificate, inter.certificate)
    also = attribute("data", oid("data"))
    assert check(stamp(NOTE, signer, [inter.certificate], named=None, more_attributes=[named, also, also]))
    assert check(stamp(NOTE, SIGNER, more_attributes=[names_by_sha1(SIGNER.certificate)]))
    assert check(stamp(NOTE, SIGNER, named=None, more_attributes=[named_beside()]))
    assert check(stamp(NOTE, SIGNER, behind=unknown_extension(False)))
    host = x509.DNSName("tsa.example")
    other = issue("tsa", ROOT, extensions=[STAMPS_ONLY, (x509.SubjectAlternativeName([host]), False)])
    for name in (der(0xA4, other.certificate.subject.public_bytes()), der(0x82, b"tsa.example")):
        assert check(stamp(NOTE, other, behind=der(0xA0, name)))


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(b"", None), (der(0x30), 0), (der(0x30, der(0x80, b"\5"), der(0x81, b"\7")), 0.005007),
     (der(0x30, number(2**63 - 1)), 2.0**63)],
)  # fmt: skip
def test_the_accuracy_is_what_the_stamp_says(said: bytes, seconds: float | None) -> None:
    assert check(stamp(NOTE, SIGNER, accuracy=said)).accuracy_s == seconds


@pytest.mark.parametrize("name", ["p256", "rsa"])
def test_a_stamp_holds_alone_or_is_altered_whoever_is_believed(name: str) -> None:
    token = real(name)
    assert check_alone(token, NOTE) == read_stamp(token)
    changed = token[:-1] + bytes([token[-1] ^ 1])
    for use in (lambda: check_alone(changed, NOTE), lambda: check_stamp(changed, NOTE, [])):
        with pytest.raises(ProofError, match="altered: its signature does not fit the key of CN=test authority"):
            use()


def test_another_time_over_the_same_signature_does_not_hold_alone() -> None:
    token = stamp(NOTE, SIGNER).replace(b"20260102030405Z", b"20250102030405Z")
    assert read_stamp(token).time.year == 2025
    with pytest.raises(ProofError, match="its signature does not fit the key of CN=tsa, or not what it is over"):
        check_alone(token, NOTE)


def test_a_stamp_by_a_certificate_that_had_expired_does_not_hold_alone() -> None:
    with pytest.raises(ProofError, match="expired when the time was stamped"):
        check_alone(real("expired"), NOTE)


def test_without_the_library_nothing_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    for use in (lambda: read_stamp(real("p256")), lambda: check_stamp(real("p256"), NOTE, real_root("p256"))):
        with pytest.raises(CannotTell, match=r"pip install 'fgtrac\[tsa\]'"):
            use()
