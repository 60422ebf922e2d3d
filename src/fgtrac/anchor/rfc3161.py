"""Time stamps (RFC 3161): a tree head stamped by an authority, and stamps checked against the roots that are named."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from fgtrac.anchor import stamp_reply
from fgtrac.anchor.certificates import (
    UNREADABLE,
    alternative_names,
    check_signer,
    find_path,
    issuer_and_number,
    read_certificate,
    read_roots,
    shown_name,
)
from fgtrac.anchor.seconds import read_seconds
from fgtrac.anchor.service import ProveFrom, SignedHead
from fgtrac.anchor.stamp_reply import CertificateName, Info, Reply, Signed, read_reply
from fgtrac.anchor.transport import check_url, fetch, shown
from fgtrac.errors import AnchorError, FormatError, ProofError, RefusedError, not_installed
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.receipts import rfc3161_name

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

__all__ = ["CheckedStamp", "Stamp", "TimeStampAuthority", "check_alone", "check_stamp", "read_roots", "read_stamp"]

_DIGESTS = {"2.16.840.1.101.3.4.2.1": "sha256", "2.16.840.1.101.3.4.2.2": "sha384", "2.16.840.1.101.3.4.2.3": "sha512"}
_HARMLESS_TYPES = ("", "text/html", "text/plain", "application/json")  # others may be an echo of what is secret
_BROKEN = {"1.3.14.3.2.26": "SHA-1", "1.2.840.113549.2.5": "MD5"}
_SIGNED_OVER = {
    stamp_reply.SHA256: hashes.SHA256(), stamp_reply.SHA384: hashes.SHA384(), stamp_reply.SHA512: hashes.SHA512(),
}  # fmt: skip
_NAMED_BY = {stamp_reply.SHA1: hashes.SHA1(), **_SIGNED_OVER}
_NOT_ACCEPTED = (
    "the time stamp is signed in a way that is not accepted: RSA (PKCS #1) and ECDSA over SHA-256, SHA-384 or SHA-512 "
    "are"
)
_SIGNATURES = {  # RSA (PKCS #1 v1.5) and ECDSA, as PKCS #7 names them; SHA-256, SHA-384, SHA-512
    *(bytes.fromhex("2a864886f70d0101" + end) for end in ("01", "0b", "0c", "0d")),
    *(bytes.fromhex("2a8648ce3d0403" + end) for end in ("02", "03", "04")),
}


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a time stamp says: the time, to how many seconds (None where it does not say), over which digest.

    `by` is the subject of the certificate that it names as its signer's. Nothing of it is checked.
    """

    time: datetime
    accuracy_s: float | None
    algorithm: str
    imprint: bytes
    nonce: int | None
    by: str


@dataclass(frozen=True, slots=True)
class CheckedStamp(Stamp):
    """A time stamp that holds: the subject of the root it rests on, and when the first certificate up to it ends."""

    root: str
    until: datetime


class TimeStampAuthority:
    """A time-stamping authority that answers over HTTP (RFC 3161 section 3.4).

    ValueError for what is no http or https URL and a timeout that is not above 0.
    """

    kind = "rfc3161"

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        check_url(url)
        self._url, self._timeout_s = url, read_seconds(timeout_s, "timeout_s")

    @property
    def name(self) -> str:
        """Scheme, host and port."""
        return shown(self._url)

    def settings(self) -> Mapping[str, Any]:
        """The whole URL, with whatever is secret in it."""
        return {"kind": self.kind, "url": self._url, "timeout_s": self._timeout_s}

    def prepare(self) -> None:
        """ValueError where rfc3161-client is not installed."""
        load_library()

    def anchor(self, signed: SignedHead, prove_from: ProveFrom) -> tuple[str, bytes]:
        """Have the note's exact bytes stamped over SHA-256: the receipt is the authority's answer as it came.

        It is checked as far as it can be without a root, which is for who verifies, and compared with what was asked.
        AnchorError for no usable answer, RefusedError where the authority refuses.
        """
        library = load_library()
        asked = library.TimestampRequestBuilder(signed.note, library.HashAlgorithm.SHA256).build()
        answer = self._ask(asked.as_bytes())
        try:
            _check_granted(read_reply(answer), self.name)
            stamp = check_alone(answer, signed.note)
        except (FormatError, ProofError, CannotTell) as error:
            raise AnchorError(f"{self.name} gave no time stamp that can be used: {error}") from error
        if stamp.nonce != asked.nonce:
            raise AnchorError(f"{self.name} answered another query: nonce {stamp.nonce}, asked with {asked.nonce}")
        if stamp.algorithm != "sha256":
            raise AnchorError(f"{self.name} stamped a {stamp.algorithm} digest, asked to stamp a sha256")
        return rfc3161_name(self._url), answer

    def _ask(self, query: bytes) -> bytes:
        status, content_type, body = fetch(
            self._url,
            data=query,
            content_type="application/timestamp-query",
            timeout_s=self._timeout_s,
            max_bytes=stamp_reply.MAX_BYTES,
        )
        if status in (401, 403):  # of whoever stands in front of it: an administrator can change that
            raise AnchorError(f"{self.name} answers with HTTP status {status}: are user and password right?")
        if status != 200:
            raise AnchorError(
                f"{self.name} answers with HTTP status {status}; is the URL that of a time-stamping authority?"
            )
        if content_type != "application/timestamp-reply":
            shown_type = repr(content_type) if content_type in _HARMLESS_TYPES else "another content type"
            raise AnchorError(
                f"{self.name} answers with {shown_type}, not with application/timestamp-reply; is the URL that of a "
                "time-stamping authority?"
            )
        return body


def read_stamp(token: bytes) -> Stamp:
    """What a time stamp (DER TimeStampResp) says, unchecked. FormatError for what is none; CannotTell for a form that
    is not supported, and where rfc3161-client is not installed."""
    return _read(token).stamp


def check_stamp(token: bytes, note: bytes, roots: Sequence[x509.Certificate]) -> CheckedStamp:
    """The time stamp, once it is shown to be over `note` and signed by an authority that leads to one of `roots`.

    Certificates are judged at the time that was stamped (RFC 3161 section 2.3, RFC 5280); nobody is asked whether
    they were revoked. FormatError for what is no time stamp; ProofError for one that is altered, over other bytes, not
    granted, or by a certificate that was not valid then or not for time stamps; CannotTell where it leads to none of
    `roots`, rests on MD5 or SHA-1, or has a form that is not supported.
    """
    read = _checked(token, note)
    path = find_path(read.signer, read.certificates, roots, read.stamp.time)
    _check_names_above(read.signed, path)
    _check_by_openssl(read.answer, note, path)
    until = min(certificate.not_valid_after_utc for certificate in path)
    return CheckedStamp(**asdict(read.stamp), root=shown_name(path[-1].subject), until=until)


def check_alone(token: bytes, note: bytes) -> Stamp:
    """The time stamp, once it holds for whoever believes the authority that it names: all of `check_stamp`, but where
    its certificate leads. Raises as that does."""
    return _checked(token, note).stamp


def load_library() -> ModuleType:
    """rfc3161-client. ValueError, with the remedy, where it is not installed."""
    try:
        import rfc3161_client
    except ModuleNotFoundError as error:
        raise not_installed("time stamps need", "rfc3161-client", "tsa") from error
    return rfc3161_client


@dataclass(frozen=True, slots=True)
class _Read:
    """A time stamp as the library reads it, what its own bytes say beyond that, its certificates, and what it says."""

    reply: Reply
    info: Info
    signed: Signed
    answer: TimeStampResponse
    certificates: tuple[x509.Certificate, ...]
    signer: x509.Certificate
    subject: x509.Name | None
    stamp: Stamp


def _read(token: bytes) -> _Read:
    reply = read_reply(token)
    if reply.token is None:
        raise FormatError(f"the authority's answer holds no time stamp: {reply.words()}")
    info, signed = reply.token
    if info.has_critical:
        raise CannotTell("the time stamp has a critical extension, which is not supported")
    if not signed.is_by_issuer:
        raise CannotTell("the time stamp names its signer by key and not by issuer and number, which is not supported")
    try:
        library = load_library()
    except ValueError as error:  # this machine's fault, not the token's
        raise CannotTell(str(error)) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of certificates' serial numbers below 1
            answer: TimeStampResponse = library.decode_timestamp_response(reply.ordered)
            certificates = tuple(map(read_certificate, sorted(answer.signed_data.certificates)))
            signer = _signer(answer, certificates)
            is_by_subject = (info.authority or b"").startswith(stamp_reply.DIRECTORY_NAME.to_bytes())
            subject = answer.tst_info.name.value if is_by_subject else None
            stamp = _stamp(answer, signer, info)
    except UNREADABLE as error:
        raise FormatError(f"the bytes are no time stamp: {' '.join(str(error).split()):.200}") from error
    return _Read(reply, info, signed, answer, certificates, signer, subject, stamp)


def _check_granted(reply: Reply, name: str) -> None:
    """RefusedError where an authority said no, AnchorError where it said: not now."""
    if reply.status == 0:
        return
    if reply.status == 3 or not stamp_reply.PASSING.isdisjoint(reply.failures):
        raise AnchorError(f"{name} gave no time stamp: {reply.words()}; try again later")
    raise RefusedError(f"{name} refused to stamp: {reply.words()}")


def _signer(answer: TimeStampResponse, certificates: Sequence[x509.Certificate]) -> x509.Certificate:
    """The certificate of the token's signer, found by issuer and serial number."""
    if not certificates:
        raise CannotTell("the time stamp carries no certificate of its signer (certReq), which is not supported")
    (info,) = answer.signed_data.signer_infos
    found = [c for c in certificates if c.issuer == info.issuer and c.serial_number == info.serial_number]
    if len(found) != 1:
        raise ProofError(f"the time stamp carries {len(found)} certificates of the signer that it names, not one")
    return found[0]


def _stamp(answer: TimeStampResponse, signer: x509.Certificate, own: Info) -> Stamp:
    info, imprint = answer.tst_info, answer.tst_info.message_imprint
    oid = imprint.hash_algorithm.dotted_string
    if oid not in _DIGESTS:
        raise CannotTell(f"the time stamp is over a {_BROKEN.get(oid, oid)} digest, which is not accepted")
    time = info.gen_time.replace(microsecond=int(f"{own.fraction:0<6.6}"))
    return Stamp(time, own.accuracy_s, _DIGESTS[oid], imprint.message, info.nonce, shown_name(signer.subject))


def _is_over(stamp: Stamp, note: bytes) -> bool:
    return hashlib.new(stamp.algorithm, note).digest() == stamp.imprint


def _imprints(stamp: Stamp, note: bytes) -> str:
    """Both digests."""
    own = hashlib.new(stamp.algorithm, note).hexdigest()
    return f"{stamp.algorithm} {stamp.imprint.hex()}, and the head's is {own}"


def _checked(token: bytes, note: bytes) -> _Read:
    """All that can be checked of a time stamp without a root."""
    read = _read(token)
    if read.reply.status != 0:
        raise ProofError(f"the time stamp was not granted: {read.reply.words()}")
    if not _is_over(read.stamp, note):
        raise ProofError(f"the time stamp is over other bytes: {_imprints(read.stamp, note)}")
    if read.signed.digest not in _SIGNED_OVER or read.signed.algorithm not in _SIGNATURES:
        raise CannotTell(_NOT_ACCEPTED)
    _check_name(read.signed, read.signer)
    check_signer(read.signer, read.stamp.time)
    _check_authority(read)
    _check_signature(read.info, read.signed, read.signer)
    return read


def _check_authority(read: _Read) -> None:
    """That the authority's name in the time stamp, if there is one, is its certificate's (RFC 3161 section 2.4.2)."""
    said, signer = read.info.authority, read.signer
    if said is None or read.subject == signer.subject or said in alternative_names(signer):
        return
    words = f"{said[2:]!r:.200}" if read.subject is None else shown_name(read.subject)
    raise ProofError(
        f"the time stamp says that it is by {words}, and its certificate is another's: {shown_name(signer.subject)}"
    )


def _check_name(signed: Signed, signer: x509.Certificate) -> None:
    """That the time stamp signs that this very certificate is its signer's (RFC 3161 section 2.4.2)."""
    if not signed.names:
        raise ProofError("the time stamp does not sign which certificate is its signer's (RFC 3161 section 2.4.2)")
    for name, *_ in signed.names:
        own = _digest(signer, name)
        if own != name.digest:
            raise ProofError(
                f"the time stamp was altered, or is not signed by {shown_name(signer.subject)}: the certificate it "
                f"signs has the digest {name.digest.hex()}, the one it carries {own.hex()}"
            )
        if not _has_number(signer, name):
            raise ProofError(
                f"the time stamp signs another issuer or number than its certificate has, {shown_name(signer.subject)}"
            )


def _check_names_above(signed: Signed, path: Sequence[x509.Certificate]) -> None:
    """That the certificates named behind the signer's are on the way to the root (RFC 5035 section 4)."""
    for _, *names in signed.names:
        for name in names:
            if not any(_digest(c, name) == name.digest and _has_number(c, name) for c in path[1:]):
                raise CannotTell(
                    f"the time stamp names a certificate above its signer's, of the digest {name.digest.hex()}, which "
                    f"is not on the way to the root that you named, {shown_name(path[-1].subject)}"
                )


def _digest(certificate: x509.Certificate, name: CertificateName) -> bytes:
    if name.algorithm not in _NAMED_BY:
        raise CannotTell("the time stamp names its signer's certificate by a digest that is not supported")
    return certificate.fingerprint(_NAMED_BY[name.algorithm])


def _has_number(certificate: x509.Certificate, name: CertificateName) -> bool:
    return name.issuer_and_number in (None, issuer_and_number(certificate))


def _check_signature(info: Info, signed: Signed, signer: x509.Certificate) -> None:
    """The signature, by the key of the certificate that the time stamp carries (RFC 5652 section 5.4)."""
    algorithm = _SIGNED_OVER[signed.digest]
    altered = f"the time stamp was altered: its signature does not fit the key of {shown_name(signer.subject)}"
    if hashlib.new(algorithm.name, info.raw).digest() != signed.content_digest:
        raise ProofError(f"{altered}, or not what it is over")
    try:
        key = signer.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signed.signature, signed.attributes, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signed.signature, signed.attributes, ec.ECDSA(algorithm))
        else:
            raise CannotTell(_NOT_ACCEPTED)
    except InvalidSignature as error:
        raise ProofError(altered) from error
    except UNREADABLE as error:
        raise CannotTell(_NOT_ACCEPTED) from error


def _check_by_openssl(answer: TimeStampResponse, note: bytes, path: Sequence[x509.Certificate]) -> None:
    """The signature, and the way to a root (the path's last) once more, as OpenSSL sees it."""
    library = load_library()
    try:
        library.VerifierBuilder(roots=list(path)).build().verify_message(answer, note)
    except library.VerificationError as error:
        reasons = re.findall(r'(?:reason|data): "([^"]*)"', str(error)) or [str(error)]
        words = "; ".join(" ".join(reason.split()) for reason in reasons)[:300]
        if "certificate verify error" in words:
            raise CannotTell(f"OpenSSL does not accept the way to the root that you named: {words}") from error
        raise ProofError(f"the time stamp was altered: its signature does not fit ({words})") from error
