"""Time stamps made by hand (RFC 3161, RFC 5652), byte by byte and really signed: as they should be, or with one lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from authorities import Identity
from fgtrac.anchor.der import INTEGER, OCTET_STRING, SEQUENCE, read_elements

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OIDS = {
    "sha1": "2b0e03021a", "md5": "2a864886f70d0205", "sha256": "608648016503040201", "sha512": "608648016503040203",
    "signed data": "2a864886f70d010702", "TSTInfo": "2a864886f70d0109100104", "policy": "2a030401",
    "content type": "2a864886f70d010903", "message digest": "2a864886f70d010904",
    "certificate": "2a864886f70d010910022f", "ecdsa": "2a8648ce3d040302", "rsa": "2a864886f70d010101",
    "certificate by SHA-1": "2a864886f70d010910020c", "data": "2a864886f70d010701", "ed25519": "2b6570",
}  # fmt: skip
HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}


def der(tag: int, *parts: bytes) -> bytes:
    """One element."""
    content = b"".join(parts)
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 + len(length))) + length + content


def oid(name: str) -> bytes:
    return der(0x06, bytes.fromhex(OIDS[name]))


def number(value: int) -> bytes:
    return der(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def algorithm(name: str) -> bytes:
    return der(SEQUENCE, oid(name), der(0x05) if name not in ("ecdsa", "ed25519") else b"")


def attribute(name: str, value: bytes) -> bytes:
    return der(SEQUENCE, oid(name), der(0x31, value))


def names_certificate(
    certificate: x509.Certificate, *above: x509.Certificate, behind: bytes = b"", behind_above: bytes = b""
) -> bytes:
    """The signed attribute that names the signer's certificate by its SHA-256 (RFC 5035), and others above it; behind
    their digests may stand more."""
    pairs = [(certificate, behind), *((other, behind_above) for other in above)]
    names = [der(SEQUENCE, der(OCTET_STRING, named.fingerprint(hashes.SHA256())), more) for named, more in pairs]
    return attribute("certificate", der(SEQUENCE, der(SEQUENCE, *names)))


def issuer_serial(issuer: x509.Name, serial: int) -> bytes:
    """How a certificate is named beside its digest."""
    return der(SEQUENCE, der(SEQUENCE, der(0xA4, issuer.public_bytes())), number(serial))


def names_by_sha1(certificate: x509.Certificate, before: bytes = b"") -> bytes:
    """The older attribute that names one (RFC 2634); `before` its digest nothing should stand."""
    digest = before + der(OCTET_STRING, certificate.fingerprint(HASHES["sha1"]))
    return attribute("certificate by SHA-1", der(SEQUENCE, der(SEQUENCE, der(SEQUENCE, digest))))


def unknown_extension(is_critical: bool) -> bytes:
    """Extensions of a TSTInfo: one that nobody knows."""
    return der(0xA1, der(SEQUENCE, oid("policy"), b"\1\1\xff" * is_critical, der(OCTET_STRING, b"\5\0")))


def stamp(
    note: bytes,
    signer: Identity,
    carried: Sequence[x509.Certificate] = (),
    *,
    when: datetime | str = WHEN,
    nonce: int | None = None,
    status: int = 0,
    digest: str = "sha256",
    signed_over: str = "sha256",
    signed_by: str | None = None,
    named: x509.Certificate | bytes | bool | None = True,
    by_key: bool = False,
    carries_signer: bool = True,
    in_order: bool = True,
    signers: int = 1,
    has_attributes: bool = True,
    version: int = 1,
    accuracy: bytes = b"",
    behind: bytes = b"",
    content_type: str | None = "TSTInfo",
    more_attributes: Sequence[bytes] = (),
) -> bytes:
    """A TimeStampResp over `note`. `carried` are more certificates; `named` is the one it signs to be its signer's, or
    what it signs instead (DER). `accuracy` and what stands `behind` the nonce are DER of the TSTInfo."""
    time = when if isinstance(when, str) else f"{when:%Y%m%d%H%M%S}Z"
    imprint = der(SEQUENCE, algorithm(digest), der(OCTET_STRING, hashlib.new(digest, note).digest()))
    info = der(
        SEQUENCE, number(version), oid("policy"), imprint, number(7), der(0x18, time.encode()), accuracy,
        number(nonce) if nonce is not None else b"", behind,
    )  # fmt: skip
    found = [signer.certificate] * carries_signer + list(carried)
    certificates = sorted((c.public_bytes(Encoding.DER) for c in found), reverse=not in_order)
    attributes = [
        attribute("message digest", der(OCTET_STRING, hashlib.new(signed_over, info).digest())),
        *more_attributes,
    ]
    if content_type is not None:
        attributes.append(attribute("content type", oid(content_type)))
    if isinstance(named, bytes):
        attributes.append(attribute("certificate", named))
    elif named:
        attributes.append(names_certificate(signer.certificate if named is True else named))
    signed = b"".join(sorted(attributes))
    issuer = der(SEQUENCE, signer.certificate.issuer.public_bytes(), number(signer.certificate.serial_number))
    signed_by = signed_by or ("ecdsa" if isinstance(signer.key, ec.EllipticCurvePrivateKey) else "rsa")
    signer_info = der(
        SEQUENCE, number(3 if by_key else 1), der(0x80, b"key") if by_key else issuer, algorithm(signed_over),
        der(0xA0, signed) if has_attributes else b"", algorithm(signed_by),
        der(OCTET_STRING, _sign(signer, der(0x31, signed) if has_attributes else info, signed_over)),
    )  # fmt: skip
    signed_data = der(
        SEQUENCE, number(3), der(0x31, algorithm(signed_over)),
        der(SEQUENCE, oid("TSTInfo"), der(0xA0, der(OCTET_STRING, info))),
        der(0xA0, *certificates) if certificates else b"", der(0x31, signer_info * signers),
    )  # fmt: skip
    token = der(SEQUENCE, oid("signed data"), der(0xA0, signed_data))
    return der(SEQUENCE, der(SEQUENCE, number(status)), token)


def _sign(signer: Identity, message: bytes, digest: str) -> bytes:
    if isinstance(signer.key, ec.EllipticCurvePrivateKey):
        return signer.key.sign(message, ec.ECDSA(HASHES[digest]))
    return signer.key.sign(message, padding.PKCS1v15(), HASHES[digest])


def signed_over_sha1(signer: Identity, issuer: Identity) -> Identity:
    """The same certificate, signed again over SHA-1, which no library here does any more; the issuer's key is RSA."""
    assert isinstance(issuer.key, rsa.RSAPrivateKey)
    by_sha256, by_sha1 = (bytes.fromhex("2a864886f70d0101" + end) for end in ("0b", "05"))
    body = signer.certificate.tbs_certificate_bytes.replace(by_sha256, by_sha1)
    signature = issuer.key.sign(body, padding.PKCS1v15(), hashes.SHA1())
    whole = der(SEQUENCE, body, der(SEQUENCE, der(0x06, by_sha1), der(0x05)), der(0x03, b"\0", signature))
    return Identity(x509.load_der_x509_certificate(whole), signer.key)


def rejection(failure_bit: int | None = None, status: int = 2, text: str = "no") -> bytes:
    """An answer without a token."""
    bits = b""
    if failure_bit is not None:
        size = failure_bit // 8 + 1
        value = (1 << (8 * size - 1 - failure_bit)).to_bytes(size, "big")
        bits = der(0x03, bytes((7 - failure_bit % 8,)), value)
    return der(SEQUENCE, der(SEQUENCE, number(status), der(SEQUENCE, der(0x0C, text.encode())), bits))


def nonce_of(query: bytes) -> int:
    """The nonce of a TimeStampReq of version 1 without a policy."""
    parts = read_elements(query)[0].parts()
    assert parts[2].tag == INTEGER
    return int.from_bytes(parts[2].content, "big")
