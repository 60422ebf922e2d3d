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
from cryptography.hazmat.primitives.serialization import Encoding

from fgtrac.anchor import stamp_reply
from fgtrac.anchor.certificates import UNREADABLE, check_signer, find_path, read_certificate, read_roots, shown_name
from fgtrac.anchor.service import ProveFrom, SignedHead
from fgtrac.anchor.stamp_reply import Reply, Signed, read_reply
from fgtrac.anchor.transport import check_url, fetch, shown
from fgtrac.errors import AnchorError, FormatError, ProofError, RefusedError
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.receipts import rfc3161_name

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

__all__ = ["CheckedStamp", "Stamp", "TimeStampAuthority", "check_stamp", "read_roots", "read_stamp"]

_DIGESTS = {"2.16.840.1.101.3.4.2.1": "sha256", "2.16.840.1.101.3.4.2.2": "sha384", "2.16.840.1.101.3.4.2.3": "sha512"}
_BROKEN = {"1.3.14.3.2.26": "SHA-1", "1.2.840.113549.2.5": "MD5"}
_SIGNED_OVER = {stamp_reply.SHA256: "sha256", stamp_reply.SHA384: "sha384", stamp_reply.SHA512: "sha512"}
_NAMED_BY = {stamp_reply.SHA1: "sha1", **_SIGNED_OVER}
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
        if timeout_s <= 0:
            raise ValueError(f"a timeout is above 0 s, got {timeout_s}")
        self._url, self._timeout_s = url, timeout_s

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

        It is read back, and compared with what was asked. It is not checked against a root: that is for who verifies.
        AnchorError for no usable answer, RefusedError where the authority refuses.
        """
        library = load_library()
        asked = library.TimestampRequestBuilder(signed.note, library.HashAlgorithm.SHA256).build()
        answer = self._ask(asked.as_bytes())
        try:
            _check_granted(read_reply(answer), self.name)
            stamp = read_stamp(answer)
        except (FormatError, CannotTell) as error:
            raise AnchorError(f"{self.name} gave no time stamp that can be used: {error}") from error
        if stamp.nonce != asked.nonce:
            raise AnchorError(f"{self.name} answered another query: nonce {stamp.nonce}, asked with {asked.nonce}")
        if not _is_over(stamp, signed.note) or stamp.algorithm != "sha256":
            raise AnchorError(f"{self.name} stamped other bytes than it was asked to: {_imprints(stamp, signed.note)}")
        return rfc3161_name(self._url), answer

    def _ask(self, query: bytes) -> bytes:
        status, content_type, body = fetch(
            self._url,
            data=query,
            content_type="application/timestamp-query",
            timeout_s=self._timeout_s,
            max_bytes=stamp_reply.MAX_BYTES,
        )
        if status in (401, 403):
            raise RefusedError(f"{self.name} refuses with HTTP status {status}: are user and password right?")
        if status != 200:
            raise AnchorError(
                f"{self.name} answers with HTTP status {status}; is the URL that of a time-stamping authority?"
            )
        if content_type != "application/timestamp-reply":
            raise AnchorError(
                f"{self.name} answers with {content_type!r:.60}, not with application/timestamp-reply; is the URL that "
                "of a time-stamping authority?"
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
    read = _read(token)
    if read.reply.status != 0:
        raise ProofError(f"the time stamp was not granted: {read.reply.words()}")
    stamp = read.stamp
    if not _is_over(stamp, note):
        raise ProofError(f"the time stamp is over other bytes: {_imprints(stamp, note)}")
    _check_names(read.signed, read.signer)
    check_signer(read.signer, stamp.time)
    path = find_path(read.signer, read.certificates, roots, stamp.time)
    _check_signature(read.answer, note, path)
    until = min(certificate.not_valid_after_utc for certificate in path)
    return CheckedStamp(**asdict(stamp), root=shown_name(path[-1].subject), until=until)


def load_library() -> ModuleType:
    """rfc3161-client. ValueError, with the remedy, where it is not installed."""
    try:
        import rfc3161_client
    except ModuleNotFoundError as error:
        raise ValueError("time stamps need rfc3161-client: pip install 'fgtrac[tsa]'") from error
    return rfc3161_client


@dataclass(frozen=True, slots=True)
class _Read:
    """A time stamp as the library reads it, what its own bytes say beyond that, its certificates, and what it says."""

    reply: Reply
    signed: Signed
    answer: TimeStampResponse
    certificates: tuple[x509.Certificate, ...]
    signer: x509.Certificate
    stamp: Stamp


def _read(token: bytes) -> _Read:
    reply = read_reply(token)
    signed = reply.signed
    if signed is None:
        raise FormatError(f"the authority's answer holds no time stamp: {reply.words()}")
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
            stamp = _stamp(answer, signer, signed.fraction)
    except UNREADABLE as error:
        raise FormatError(f"the bytes are no time stamp: {' '.join(str(error).split()):.200}") from error
    return _Read(reply, signed, answer, certificates, signer, stamp)


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


def _stamp(answer: TimeStampResponse, signer: x509.Certificate, fraction: str) -> Stamp:
    info, imprint = answer.tst_info, answer.tst_info.message_imprint
    oid = imprint.hash_algorithm.dotted_string
    if oid not in _DIGESTS:
        raise CannotTell(f"the time stamp is over a {_BROKEN.get(oid, oid)} digest, which is not accepted")
    said = info.accuracy
    accuracy = None if said is None else (said.seconds or 0) + (said.millis or 0) / 1e3 + (said.micros or 0) / 1e6
    time = info.gen_time.replace(microsecond=int(f"{fraction:0<6.6}"))
    return Stamp(time, accuracy, _DIGESTS[oid], imprint.message, info.nonce, shown_name(signer.subject))


def _is_over(stamp: Stamp, note: bytes) -> bool:
    return hashlib.new(stamp.algorithm, note).digest() == stamp.imprint


def _imprints(stamp: Stamp, note: bytes) -> str:
    """Both digests."""
    own = hashlib.new(stamp.algorithm, note).hexdigest()
    return f"{stamp.algorithm} {stamp.imprint.hex()}, and the head's is {own}"


def _check_names(signed: Signed, signer: x509.Certificate) -> None:
    """That the signature is of a kind that is supported, and names this very certificate (RFC 3161 section 2.4.2)."""
    if signed.digest not in _SIGNED_OVER or signed.algorithm not in _SIGNATURES:
        raise CannotTell(
            "the time stamp is signed in a way that is not accepted: RSA (PKCS #1) and ECDSA over SHA-256, SHA-384 or "
            "SHA-512 are"
        )
    if signed.signer is None:
        raise ProofError("the time stamp does not sign which certificate is its signer's (RFC 3161 section 2.4.2)")
    algorithm, expected = signed.signer
    if algorithm not in _NAMED_BY:
        raise CannotTell("the time stamp names its signer's certificate by a digest that is not supported")
    actual = hashlib.new(_NAMED_BY[algorithm], signer.public_bytes(Encoding.DER)).digest()
    if actual != expected:
        raise ProofError(
            f"the time stamp was altered, or is not signed by {shown_name(signer.subject)}: the certificate it signs "
            f"has the digest {expected.hex()}, the one it carries {actual.hex()}"
        )


def _check_signature(answer: TimeStampResponse, note: bytes, path: Sequence[x509.Certificate]) -> None:
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
