"""Time-stamping authorities for tests: keys and certificates, as they should be and with any one thing wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fgtrac.store import durable

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
FIRST, LAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2120, 1, 1, tzinfo=UTC)
STAMPS_ONLY = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), True)
Extensions = Sequence[tuple[x509.ExtensionType, bool]]


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Both as PEM files: NAME.pem and NAME.key."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        durable.write_file(certificate, pem(self.certificate))
        text = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        durable.write_file(key, text, mode=0o600)
        return certificate, key


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def authority_rights(path_length: int | None = None) -> Extensions:
    """What lets a certificate issue others."""
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    return [(x509.BasicConstraints(True, path_length), True), (usage, True)]


def issue(
    name: str,
    issuer: Identity | None = None,
    *,
    extensions: Extensions = (STAMPS_ONLY,),
    first: datetime = FIRST,
    last: datetime = LAST,
    key: Key | None = None,
    number: int | None = None,
) -> Identity:
    """A certificate of that common name, self-signed without an issuer; P-256 where no key is given."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(number or x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Identity(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def make_root(name: str = "test root", **options: object) -> Identity:
    return issue(name, extensions=authority_rights(), **options)  # type: ignore[arg-type]
