"""Certificates of time-stamping authorities (X.509): the roots that are named, and the way from a signer to one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from fgtrac.anchor.der import INTEGER, read_elements
from fgtrac.errors import FormatError, ProofError
from fgtrac.store.private_files import check_names_file
from fgtrac.verify.checks import CannotTell

UNREADABLE = (  # what is raised for a certificate that is none, some of it only when a part of it is asked for
    ValueError, TypeError, KeyError, UnsupportedAlgorithm,
    x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
)  # fmt: skip
_ROOTS = "name a PEM file with the authority's root certificate"
_STRONG = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_E = TypeVar("_E", bound=x509.ExtensionType)


def read_roots(path: Path | str) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file, one or several. Those that did not sign themselves serve as intermediates.
    FileNotFoundError; ValueError for a folder, and what may not be read; FormatError for what holds no certificate or a
    broken one."""
    check_names_file(Path(path))
    try:
        data = Path(path).read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of serial numbers below 1
            found = x509.load_pem_x509_certificates(data)
            return tuple(read_certificate(certificate.public_bytes(Encoding.DER)) for certificate in found)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}; {_ROOTS}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; {_ROOTS}") from error
    except UNREADABLE as error:
        raise FormatError(f"{path} holds no PEM certificates (-----BEGIN CERTIFICATE-----) that can be read") from error


def read_certificate(der: bytes) -> x509.Certificate:
    """A certificate whose names can be read, too. One of UNREADABLE for what is none."""
    certificate = x509.load_der_x509_certificate(der)
    for name in (certificate.subject, certificate.issuer):  # which are read only when asked for
        shown_name(name)
    return certificate


def issuer_and_number(certificate: x509.Certificate) -> bytes:
    """The issuer and the serial number, one behind the other in DER, as they stand in the certificate."""
    parts = read_elements(certificate.tbs_certificate_bytes)[0].parts()
    number, _, issuer = parts[parts[0].tag != INTEGER :][:3]  # behind the version, where it has one
    return issuer.raw + number.raw


def alternative_names(certificate: x509.Certificate) -> list[bytes]:
    """Whom the certificate is for beside its subject: GeneralNames in DER. One of UNREADABLE for broken extensions."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    return [] if names is None else [name.raw for name in read_elements(names.public_bytes())[0].parts()]


def shown_name(name: x509.Name) -> str:
    """A distinguished name for people (RFC 4514), on one line and at most 200 characters."""
    text = name.rfc4514_string()
    return "".join(c if c.isprintable() else "?" for c in text)[:200] or "(an empty name)"


def check_signer(signer: x509.Certificate, when: datetime) -> None:
    """ProofError unless the certificate is for time stamping and nothing else (RFC 3161 section 2.3), and was valid."""
    try:
        usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        fits = usage.critical and list(usage.value) == [ExtendedKeyUsageOID.TIME_STAMPING]
    except x509.ExtensionNotFound:
        fits = False
    except UNREADABLE as error:
        raise ProofError(f"the certificate of {shown_name(signer.subject)} has broken extensions") from error
    if not fits:
        raise ProofError(
            f"the certificate of {shown_name(signer.subject)} is not one for time stamps: it lacks the critical "
            "extended key usage timeStamping, alone (RFC 3161 section 2.3)"
        )
    if problem := _out_of_time(signer, when):
        raise ProofError(problem)


def find_path(
    signer: x509.Certificate, carried: Sequence[x509.Certificate], named: Sequence[x509.Certificate], when: datetime
) -> tuple[x509.Certificate, ...]:
    """The certificates from a signer to the first named root, each signed by the next, all of them valid at `when`.

    The shortest way (RFC 5280 section 6: signatures, validity, basic constraints, path length, key usage; extended key
    usage of intermediates; no MD5 or SHA-1). CannotTell where there is none, with what was in the way.
    """
    roots = [c for c in named if _is_self_signed(c)]
    others = [c for c in (*named, *carried) if c not in roots]
    paths: list[tuple[x509.Certificate, ...]] = [(signer,)]
    seen, obstacles = {signer}, list[str]()
    for path in paths:  # grows while it is walked
        if path[-1] in roots:
            return path
        for issuer in (*roots, *others):
            if issuer in seen or issuer.subject != path[-1].issuer:
                continue
            if problem := _why_not(path, issuer, issuer in roots, when):
                obstacles.append(problem)
            else:
                seen.add(issuer)
                paths.append((*path, issuer))
    named_words = ", ".join(shown_name(root.subject) for root in roots) or "none"
    raise CannotTell(
        f"signed by {shown_name(signer.subject)}, whose certificate {shown_name(signer.issuer)} issued: it leads to no "
        f"root that you named ({named_words:.300}){'; ' + obstacles[0] if obstacles else ''}; name the root "
        "certificate of the authority, and its intermediates"
    )


def _why_not(path: Sequence[x509.Certificate], issuer: x509.Certificate, is_root: bool, when: datetime) -> str:
    """What keeps `issuer` from being the issuer of the path's last certificate; empty where nothing does."""
    child, name = path[-1], shown_name(issuer.subject)
    try:
        if not isinstance(child.signature_hash_algorithm, (*_STRONG, type(None))):  # None: it is part of the algorithm
            return f"the certificate of {shown_name(child.subject)} is signed over a digest that is no longer safe"
        child.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return f"the certificate of {shown_name(child.subject)} is not signed by the key of {name} that is there"
    try:
        return _out_of_time(issuer, when) or _why_no_authority(issuer, len(path) - 1, is_root)
    except UNREADABLE:
        return f"the certificate of {name} is broken"


def _why_no_authority(issuer: x509.Certificate, below: int, is_root: bool) -> str:
    """What keeps `issuer` from issuing certificates for time stamps, `below` intermediates down."""
    name = shown_name(issuer.subject)
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return f"{name} is no certification authority (basic constraints)"
    if constraints.path_length is not None and below > constraints.path_length:
        return f"{name} allows {constraints.path_length} authorities below it, and there are {below}"
    usage = _extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return f"{name} may not sign certificates (key usage)"
    purposes = _extension(issuer, x509.ExtendedKeyUsage)
    allowed = {ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if purposes is not None and not is_root and allowed.isdisjoint(purposes):
        return f"{name} is not for time stamping (extended key usage)"
    return ""


def _extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _out_of_time(certificate: x509.Certificate, when: datetime) -> str:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if first <= when <= last:
        return ""
    state = "was not yet valid" if when < first else "had expired"
    return (
        f"the certificate of {shown_name(certificate.subject)} {state} when the time was stamped: valid from "
        f"{first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S}, stamped {when:%Y-%m-%d %H:%M:%S} UTC"
    )


def _is_self_signed(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True
