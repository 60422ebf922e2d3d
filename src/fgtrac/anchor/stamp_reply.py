"""A time-stamping authority's answer, read from its own bytes: TimeStampResp (RFC 3161 section 2.4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from fgtrac.anchor.der import (
    BIT_STRING,
    BOOLEAN,
    GENERALIZED_TIME,
    INTEGER,
    OBJECT_ID,
    OCTET_STRING,
    SEQUENCE,
    SET,
    Element,
    read_elements,
    take,
)  # fmt: skip
from fgtrac.errors import FormatError

MAX_BYTES = 65_536
MAX_CERTIFICATES = 16
STATES = {
    0: "granted", 1: "granted with modifications", 2: "rejection", 3: "waiting",
    4: "revocation warning", 5: "revocation notification",
}  # fmt: skip
FAILURES = {
    0: "unrecognized or unsupported algorithm", 2: "transaction not permitted or supported", 5: "wrong data format",
    14: "time source not available", 15: "policy not supported", 16: "extension not supported",
    17: "additional information not available", 25: "system failure",
}  # fmt: skip
PASSING = {14, 25}  # of these, the ones that trying again may help
SHA1 = bytes.fromhex("2b0e03021a")
SHA256, SHA384, SHA512 = (bytes.fromhex("60864801650304020" + digit) for digit in "123")
_TST_INFO = bytes.fromhex("2a864886f70d0109100104")
_CONTENT_TYPE, _CONTENT_DIGEST = (bytes.fromhex("2a864886f70d0109" + end) for end in ("03", "04"))
_BY_CERTIFICATE, _BY_CERTIFICATE_V2 = (bytes.fromhex("2a864886f70d0109100" + end) for end in ("20c", "22f"))
_ONCE = (_CONTENT_TYPE, _CONTENT_DIGEST, _BY_CERTIFICATE, _BY_CERTIFICATE_V2)
_CERTIFICATES = _ATTRIBUTES = _AUTHORITY = 0xA0
_EXTENSIONS, DIRECTORY_NAME = 0xA1, 0xA4
_PARTS_OF_A_SECOND = {INTEGER: 1, 0x80: 1e3, 0x81: 1e6}


@dataclass(frozen=True, slots=True)
class Info:
    """What is stamped, beyond what the library says of it (TSTInfo): its bytes, the digits behind the second of its
    time, how exact the time is, the authority's name (GeneralName in DER), where it says them, and whether it has a
    critical extension: none is known."""

    raw: bytes
    fraction: str
    accuracy_s: float | None
    authority: bytes | None
    has_critical: bool


@dataclass(frozen=True, slots=True)
class CertificateName:
    """How a certificate is named among what is signed (ESSCertID, ESSCertIDv2): by its hash and, where that is said, by
    `issuer_and_number`, one behind the other in DER."""

    algorithm: bytes
    digest: bytes
    issuer_and_number: bytes | None


@dataclass(frozen=True, slots=True)
class Signed:
    """What a token says of its signature. Object identifiers as their DER content.

    `digest` is the algorithm under the signature; `attributes` the bytes that the signature is over, among them
    `content_digest`, that of the TSTInfo. `names` are the lists of the signer's certificate and those above it
    (SigningCertificateV2, RFC 5035, and SigningCertificate, RFC 2634), as many as there are.
    """

    digest: bytes
    algorithm: bytes
    is_by_issuer: bool
    attributes: bytes
    signature: bytes
    content_digest: bytes
    names: tuple[tuple[CertificateName, ...], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, what it says to people, its failures' numbers, and its token, if it has one.

    `ordered` is the answer with its certificates in the order that DER asks for: no signature covers the order, many
    authorities do not keep to it, and strict readers refuse those.
    """

    status: int
    text: str
    failures: tuple[int, ...]
    token: tuple[Info, Signed] | None
    ordered: bytes

    def words(self) -> str:
        """The status in words, with the authority's own."""
        state = STATES.get(self.status, f"unknown status {self.status}")
        why = [FAILURES.get(number, f"failure {number}") for number in self.failures]
        return "; ".join([state, *why, *([repr(self.text)] if self.text else [])])


def read_reply(data: bytes) -> Reply:
    """Read an answer. FormatError for what is no DER TimeStampResp of at most 64 KiB and 16 certificates."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"{len(data):,} bytes are no time stamp; one has at most {MAX_BYTES:,}")
    outer = read_elements(data)
    if len(outer) != 1 or outer[0].tag != SEQUENCE:
        raise FormatError("the bytes are no answer of a time-stamping authority: not one DER sequence")
    parts = take(outer[0], SEQUENCE)
    status, text, failures = _status(parts[0])
    if len(parts) == 1:
        return Reply(status, text, failures, None, data)
    signed_data = take(take(parts[1], OBJECT_ID, 0xA0)[1], SEQUENCE)[0]
    inside = take(signed_data, INTEGER, SET, SEQUENCE)
    token = _info(inside[2]), _signed(inside[-1])
    return Reply(status, text, failures, token, _ordered(data, inside[3]))


def _status(info: Element) -> tuple[int, str, tuple[int, ...]]:
    """PKIStatusInfo: the status, its texts on one line, and the bits of its failure information."""
    parts = take(info, INTEGER)
    texts: list[str] = []
    failures: tuple[int, ...] = ()
    for part in parts[1:]:
        if part.tag == SEQUENCE:
            texts.extend(text.content.decode("utf-8", "replace") for text in part.parts())
        elif part.tag == BIT_STRING and 1 < len(part.content) < 6:
            bits = part.content[1:]
            failures = tuple(n for n in range(8 * len(bits)) if bits[n // 8] >> (7 - n % 8) & 1)
        else:
            raise FormatError("a status holds something other than texts and a failure")
    text = "".join(c if c.isprintable() else " " for c in " ".join(texts))
    return int.from_bytes(parts[0].content, signed=True), text[:200], failures


def _info(content: Element) -> Info:
    """The token's TSTInfo (RFC 3161 section 2.4.2)."""
    wrapped = take(content, OBJECT_ID, 0xA0)[1]
    info = take(wrapped, OCTET_STRING)[0]
    parts = take(take(info, SEQUENCE)[0], INTEGER, OBJECT_ID, SEQUENCE, INTEGER, GENERALIZED_TIME)
    if parts[0].content != b"\1":
        raise FormatError(f"a time stamp is of version 1, and this one of {int.from_bytes(parts[0].content)!s:.20}")
    more = {part.tag: part for part in parts[5:]}
    extensions = more[_EXTENSIONS].parts() if _EXTENSIONS in more else []
    has_critical = any(take(e, OBJECT_ID, BOOLEAN)[1].content != b"\0" for e in extensions if len(e.parts()) > 2)
    authority = more[_AUTHORITY].content if _AUTHORITY in more else None
    return Info(info.content, _fraction(parts[4].content), _accuracy(more.get(SEQUENCE)), authority, has_critical)


def _fraction(time: bytes) -> str:
    """The digits of a second's fraction (GeneralizedTime YYYYMMDDhhmmss[.f]Z)."""
    whole, _, digits = time.rstrip(b"Z").partition(b".")
    if not time.endswith(b"Z") or not (whole + digits).isdigit():
        raise FormatError(f"{time!r:.60} is no time of a time stamp")
    return digits.decode()


def _accuracy(said: Element | None) -> float | None:
    """Seconds: what is not said of them is 0 (section 2.4.2)."""
    if said is None:
        return None
    seconds = 0.0
    for part in said.parts():
        value = int.from_bytes(part.content, signed=True)
        if part.tag not in _PARTS_OF_A_SECOND or not 0 <= value < 1 << 63:
            raise FormatError(
                "a time stamp's accuracy is a number of seconds, milliseconds and microseconds, each below 2^63"
            )
        seconds += value / _PARTS_OF_A_SECOND[part.tag]
    return seconds


def _signed(infos: Element) -> Signed:
    """The one SignerInfo (RFC 5652 section 5.3)."""
    if len(infos.parts()) != 1:
        raise FormatError("a time stamp has exactly one signer")
    parts = take(infos.parts()[0], INTEGER)
    if [part.tag for part in parts[2:6]] != [SEQUENCE, _ATTRIBUTES, SEQUENCE, OCTET_STRING]:
        raise FormatError(
            "a time stamp's signer has a digest algorithm, signed attributes, an algorithm and a signature"
        )
    attributes = _attributes(parts[3])
    kind, content_digest = attributes.get(_CONTENT_TYPE), attributes.get(_CONTENT_DIGEST)
    if kind is None or content_digest is None or (kind.tag, kind.content) != (OBJECT_ID, _TST_INFO):
        raise FormatError("a time stamp signs that it is one, and its contents' digest (RFC 5652 section 5.4)")
    digest, algorithm = (take(part, OBJECT_ID)[0].content for part in (parts[2], parts[4]))
    names = tuple(_names(attributes[v], v) for v in (_BY_CERTIFICATE_V2, _BY_CERTIFICATE) if v in attributes)
    as_set = bytes((SET,)) + parts[3].raw[1:]  # section 5.4: the signature is over them with the tag of a set
    is_by_issuer = parts[1].tag == SEQUENCE
    return Signed(digest, algorithm, is_by_issuer, as_set, parts[5].content, content_digest.content, names)


def _attributes(signed: Element) -> dict[bytes, Element]:
    """Those of the signed attributes that say what is signed by whom; each has one value, and stands there once."""
    found: dict[bytes, Element] = {}
    for attribute in signed.parts():
        kind, values = take(attribute, OBJECT_ID, SET)[:2]
        if kind.content not in _ONCE:
            continue
        if kind.content in found or len(values.parts()) != 1:
            raise FormatError(
                "a time stamp signs twice what it is, what it is over, or which certificate is its signer's"
            )
        found[kind.content] = values.parts()[0]
    return found


def _names(certificates: Element, version: bytes) -> tuple[CertificateName, ...]:
    """The certificates of a SigningCertificateV2 or SigningCertificate, the signer's first."""
    found = take(take(certificates, SEQUENCE)[0], SEQUENCE)  # at least one
    return tuple(_name(parts, SHA256 if version == _BY_CERTIFICATE_V2 else SHA1) for parts in map(Element.parts, found))


def _name(parts: list[Element], algorithm: bytes) -> CertificateName:
    if parts and parts[0].tag == SEQUENCE and algorithm == SHA256:  # only the second version says which
        algorithm = take(parts.pop(0), OBJECT_ID)[0].content
    if [part.tag for part in parts] not in ([OCTET_STRING], [OCTET_STRING, SEQUENCE]):
        raise FormatError("the time stamp names its signer's certificate by something other than a hash")
    if len(parts) == 1:
        return CertificateName(algorithm, parts[0].content, None)
    issuers, number = take(parts[1], SEQUENCE, INTEGER)[:2]
    issuer, *more = take(issuers, DIRECTORY_NAME)
    if more:
        raise FormatError("the time stamp names several issuers of its signer's certificate")
    return CertificateName(algorithm, parts[0].content, issuer.content + number.raw)


def _ordered(data: bytes, certificates: Element) -> bytes:
    """The answer with its certificates in ascending order, if it carries any."""
    if certificates.tag != _CERTIFICATES:
        return data
    found = [certificate.raw for certificate in certificates.parts()]
    if len(found) > MAX_CERTIFICATES:
        raise FormatError(f"the time stamp carries {len(found)} certificates; the most is {MAX_CERTIFICATES}")
    if found == sorted(found):
        return data
    if data.count(certificates.content) != 1:
        raise FormatError("the time stamp's certificates stand in it twice")
    return data.replace(certificates.content, b"".join(sorted(found)))
