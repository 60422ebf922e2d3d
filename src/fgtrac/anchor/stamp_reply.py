"""A time-stamping authority's answer, read from its own bytes: TimeStampResp (RFC 3161 section 2.4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from fgtrac.anchor.der import (
    BIT_STRING,
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
_BY_CERTIFICATE, _BY_CERTIFICATE_V2 = bytes.fromhex("2a864886f70d010910020c"), bytes.fromhex("2a864886f70d010910022f")
_CERTIFICATES, _ATTRIBUTES = 0xA0, 0xA0


@dataclass(frozen=True, slots=True)
class Signed:
    """What a token says of its signature. Object identifiers as their DER content.

    `digest` is the algorithm under the signature; `signer` the hash (algorithm, value) of the signer's certificate
    among what is signed (RFC 2634, RFC 5035), None without one; `fraction` the digits behind the second of its time.
    """

    digest: bytes
    algorithm: bytes
    is_by_issuer: bool
    signer: tuple[bytes, bytes] | None
    fraction: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, what it says to people, its failures' numbers, and its token, if it has one.

    `ordered` is the answer with its certificates in the order that DER asks for: no signature covers the order, many
    authorities do not keep to it, and strict readers refuse those.
    """

    status: int
    text: str
    failures: tuple[int, ...]
    signed: Signed | None
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
    signed = _signed(inside[-1], _fraction(inside[2]))
    return Reply(status, text, failures, signed, _ordered(data, inside[3]))


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


def _fraction(content: Element) -> str:
    """The digits of a second's fraction in the token's TSTInfo (GeneralizedTime YYYYMMDDhhmmss[.f]Z)."""
    wrapped = take(content, OBJECT_ID, 0xA0)[1]
    info = take(take(wrapped, OCTET_STRING)[0], SEQUENCE)[0]
    time = take(info, INTEGER, OBJECT_ID, SEQUENCE, INTEGER, GENERALIZED_TIME)[4].content
    whole, _, digits = time.rstrip(b"Z").partition(b".")
    if not time.endswith(b"Z") or not (whole + digits).isdigit():
        raise FormatError(f"{time!r:.60} is no time of a time stamp")
    return digits.decode()


def _signed(infos: Element, fraction: str) -> Signed:
    """The one SignerInfo (RFC 5652 section 5.3)."""
    if len(infos.parts()) != 1:
        raise FormatError("a time stamp has exactly one signer")
    parts = take(infos.parts()[0], INTEGER)
    if [part.tag for part in parts[2:6]] != [SEQUENCE, _ATTRIBUTES, SEQUENCE, OCTET_STRING]:
        raise FormatError(
            "a time stamp's signer has a digest algorithm, signed attributes, an algorithm and a signature"
        )
    attributes = {kind.content: values for kind, values in (take(a, OBJECT_ID, SET)[:2] for a in parts[3].parts())}
    digest, algorithm = (take(part, OBJECT_ID)[0].content for part in (parts[2], parts[4]))
    return Signed(digest, algorithm, parts[1].tag == SEQUENCE, _certificate_hash(attributes), fraction)


def _certificate_hash(attributes: dict[bytes, Element]) -> tuple[bytes, bytes] | None:
    """The first certificate's hash of SigningCertificateV2, or without one of SigningCertificate."""
    for kind, algorithm in ((_BY_CERTIFICATE_V2, SHA256), (_BY_CERTIFICATE, SHA1)):
        if kind in attributes:
            names = take(take(take(attributes[kind], SEQUENCE)[0], SEQUENCE)[0], SEQUENCE)[0].parts()
            if names and names[0].tag == SEQUENCE and kind == _BY_CERTIFICATE_V2:
                algorithm = take(names.pop(0), OBJECT_ID)[0].content
            if not names or names[0].tag != OCTET_STRING:
                raise FormatError("the time stamp names its signer's certificate by something other than a hash")
            return algorithm, names[0].content
    return None


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
