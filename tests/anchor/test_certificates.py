"""Certificates of time-stamping authorities: whom one is for, which way leads from it to a root, and files of roots."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

from authorities import STAMPS_ONLY, Extensions, Identity, authority_rights, issue, make_root, pem
from fgtrac.anchor.rfc3161 import CheckedStamp, check_stamp, read_roots
from fgtrac.errors import FormatError, ProofError
from fgtrac.verify.checks import CannotTell
from stamps_by_hand import WHEN, signed_over_sha1, stamp

ROOT = make_root()
OTHER_ROOT = make_root()  # of the same name
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NOTE = b"a head\n"
SERVERS = (x509.ExtendedKeyUsage([Usage.SERVER_AUTH]), False)
BEFORE, AFTER = WHEN - timedelta(days=1), WHEN + timedelta(days=1)


def check(token: bytes, *named: Identity) -> CheckedStamp:
    return check_stamp(token, NOTE, [identity.certificate for identity in named or (ROOT,)])


@pytest.mark.parametrize(
    "extensions",
    [
        [],
        [(STAMPS_ONLY[0], False)],
        [SERVERS],
        [(x509.ExtendedKeyUsage([Usage.TIME_STAMPING, Usage.CODE_SIGNING]), True)],
    ],
    ids=["none", "not critical", "another", "one more"],
)
def test_a_certificate_that_is_not_for_time_stamps_alone_refutes(extensions: Extensions) -> None:
    with pytest.raises(ProofError, match="lacks the critical extended key usage timeStamping"):
        check(stamp(NOTE, issue("web server", ROOT, extensions=extensions)))


def test_the_certificate_is_judged_at_the_time_that_was_stamped() -> None:
    signer = issue("tsa", ROOT, first=BEFORE, last=AFTER)
    second = timedelta(seconds=1)
    for when in (BEFORE, WHEN, AFTER - second):
        assert check(stamp(NOTE, signer, when=when)).until == AFTER
    with pytest.raises(ProofError, match="CN=tsa was not yet valid when"):
        check(stamp(NOTE, signer, when=BEFORE - second))
    with pytest.raises(ProofError, match="CN=tsa had expired when"):
        check(stamp(NOTE, signer, when=AFTER + second))


def test_a_certificate_that_ended_since_still_holds_and_its_end_is_told() -> None:
    assert check(stamp(NOTE, issue("tsa", ROOT, last=AFTER))).until == AFTER < datetime.now(UTC)


def test_an_intermediate_may_be_carried_or_named() -> None:
    between = issue("between", ROOT, extensions=authority_rights(0), last=AFTER)
    signer = issue("tsa", between)
    for token, named in [
        (stamp(NOTE, signer, [between.certificate]), [ROOT]),
        (stamp(NOTE, signer), [ROOT, between]),
        (stamp(NOTE, signer, [between.certificate]), [between, ROOT, ROOT]),
    ]:
        assert (check(token, *named).root, check(token, *named).until) == ("CN=test root", AFTER)
    with pytest.raises(CannotTell, match="whose certificate CN=between issued: it leads to no root that you named"):
        check(stamp(NOTE, signer))
    with pytest.raises(CannotTell, match=r"no root that you named \(none\)"):
        check(stamp(NOTE, signer), between)
    with pytest.raises(CannotTell, match=r"no root that you named \(none\)"):
        check_stamp(stamp(NOTE, signer), NOTE, [])


def test_an_authority_may_be_its_own_root() -> None:
    alone = issue("alone")
    assert check(stamp(NOTE, alone), alone).root == "CN=alone"
    with pytest.raises(CannotTell, match="leads to no root"):
        check(stamp(NOTE, alone))


between = partial(issue, "between", ROOT)
UNKNOWN = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\0"), True)
ELSEWHERE = (x509.NameConstraints([x509.DirectoryName(ROOT.certificate.subject)], None), True)
NO_SIGNING = (x509.KeyUsage(True, *[False] * 8), True)
OBSTACLES: dict[str, tuple[Identity, str]] = {
    "no authority": (between(extensions=[]), "no certification authority"),
    "not for certificates": (between(extensions=[authority_rights()[0], NO_SIGNING]), "may not sign certificates"),
    "for servers": (between(extensions=[*authority_rights(), SERVERS]), "not for time stamping"),
    "expired": (between(extensions=authority_rights(), last=BEFORE), "CN=between had expired when"),
    "not yet valid": (between(extensions=authority_rights(), first=AFTER), "CN=between was not yet valid when"),
    "of another root": (
        issue("between", OTHER_ROOT, extensions=authority_rights()),
        "not signed by the key of CN=test",
    ),
    "unknown critical extension": (between(extensions=[*authority_rights(), UNKNOWN]), "unhandled critical extension"),
    "other names only": (between(extensions=[*authority_rights(), ELSEWHERE]), "permitted subtree violation"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("is_named", [False, True], ids=["carried", "named"])
def test_no_way_leads_over_an_intermediate_that_may_not_issue(obstacle: str, is_named: bool) -> None:
    intermediate, words = OBSTACLES[obstacle]
    carried, named = ([], [ROOT, intermediate]) if is_named else ([intermediate.certificate], [ROOT])
    token = stamp(NOTE, issue("tsa", intermediate), carried)
    with pytest.raises(CannotTell, match=words):
        check(token, *named)


def test_no_way_is_longer_than_an_authority_above_allows() -> None:
    upper = issue("upper", ROOT, extensions=authority_rights(0))
    lower = issue("lower", upper, extensions=authority_rights())
    token = stamp(NOTE, issue("tsa", lower), [upper.certificate, lower.certificate])
    with pytest.raises(CannotTell, match="CN=upper allows 0 authorities below it, and there are 1"):
        check(token)


def test_a_root_that_was_not_valid_leads_nowhere() -> None:
    for root, words in [(make_root(last=BEFORE), "had expired"), (make_root(first=AFTER), "was not yet valid")]:
        with pytest.raises(CannotTell, match=f"CN=test root {words} when"):
            check(stamp(NOTE, issue("tsa", root)), root)


def test_a_certificate_signed_over_a_broken_digest_leads_nowhere() -> None:
    root = make_root(key=RSA_KEY)
    signer = issue("tsa", root)
    assert check(stamp(NOTE, signer), root).by == "CN=tsa"
    with pytest.raises(CannotTell, match="certificate of CN=tsa is signed over a digest that is no longer safe"):
        check(stamp(NOTE, signed_over_sha1(signer, root)), root)


def test_roots_are_read_from_a_file_of_several(tmp_path: Path) -> None:
    file = tmp_path / "roots.pem"
    file.write_bytes(b"# mine\n" + pem(ROOT.certificate, OTHER_ROOT.certificate))
    assert read_roots(file) == (ROOT.certificate, OTHER_ROOT.certificate)
    no_version = ROOT.certificate.public_bytes(Encoding.DER).replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\x38")
    head, foot = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
    broken = [head + base64.encodebytes(content) + foot for content in (b"0", no_version)]
    for wrong in (b"", b"no PEM", pem(ROOT.certificate)[:-40], *broken):
        file.write_bytes(wrong)
        with pytest.raises(FormatError, match=r"roots\.pem holds no PEM certificates"):
            read_roots(file)
    number_1 = issue("number 1", number=1).certificate.public_bytes(Encoding.DER)
    file.write_bytes(head + base64.encodebytes(number_1.replace(b"\2\1\1", b"\2\1\0")) + foot)
    assert len(read_roots(file)) == 1  # a serial number below 1, which old roots have
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere\.pem; name a PEM file"):
        read_roots(tmp_path / "nowhere.pem")
    with pytest.raises(ValueError, match="not like the name of a file") as raised:
        read_roots("https://user:pa55word@tsa.example/root.pem")
    assert "pa55word" not in str(raised.value)
    with pytest.raises(ValueError, match=r"cannot be read: Is a directory; name a PEM file with the authority's root"):
        read_roots(tmp_path)
