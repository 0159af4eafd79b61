"""A private certificate authority, and certificates for the two servers, as bytes.

`fccl certs` reads and writes the files. The authority signs server certificates only (path length
0), so trusting its `ca.pem` means trusting these servers and nothing else. Sites authenticate by
user and password over the encrypted connection; they have no certificates. Functions raise
`ConfigError` for bytes that are not a certificate.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import ConfigError

CA_DAYS = 3650
SERVER_DAYS = 825
"""The longest validity of a server certificate that every verifier accepts."""
SKEW = timedelta(hours=24)
"""Certificates start this much earlier, for machines whose clocks are behind."""
RENEWABLE = timedelta(days=30)
"""An authority that expires sooner than this issues no new server certificates."""

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_NEW_CA = "`fccl certs --new-ca` makes another one, which every worker then needs"


@dataclass(frozen=True)
class CertificatePair:
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes


def make_ca(now: datetime, days: int = CA_DAYS) -> CertificatePair:
    """Return a new certificate authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # The key's digest is in the name: with two authorities of one name, OpenSSL would report a bad
    # signature rather than an unknown authority.
    name = _name(f"fccl authority {identifier.digest.hex()[:12]}")
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _builder(name, name, key.public_key(), now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(_authority(identifier), critical=False)
    )
    return CertificatePair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def issue_certificate(
    ca: CertificatePair, service: str, hosts: Iterable[str], now: datetime, days: int = SERVER_DAYS
) -> CertificatePair:
    """Return a certificate for one server; it does not outlive its authority.

    Args:
        service: `rabbitmq` or `redis`; part of the certificate's name.
        hosts: The names and addresses by which clients reach the server.

    Raises:
        ConfigError: A host is neither a name nor an address, or `check_ca` refuses the authority.
    """
    names = [_general_name(host) for host in dict.fromkeys(hosts)]
    authority, signer = _open_ca(ca, now)
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + timedelta(days=days), authority.not_valid_after_utc)
    builder = (
        _builder(_name(f"fccl {service}"), authority.subject, key.public_key(), now, end)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority(identifier), critical=False)
    )
    return CertificatePair(_pem(builder.sign(signer, hashes.SHA256())), _key_pem(key))


def check_ca(ca: CertificatePair, now: datetime) -> None:
    """Raise `ConfigError` for an authority that cannot sign.

    Its key or certificate is damaged, they do not belong together, or it expires soon.
    """
    _open_ca(ca, now)


def fingerprint(pem: bytes) -> str:
    """Return the SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` writes it."""
    digest = hashlib.sha256(_read(pem).public_bytes(serialization.Encoding.DER)).hexdigest().upper()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def certificate_hosts(pem: bytes) -> tuple[str, ...]:
    """Return the names and addresses in a server's certificate, which must have some."""
    try:
        extension = _read(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        raise ConfigError("the certificate names no hosts", "make one with `fccl certs`") from None
    return tuple(str(name.value) for name in extension.value)


def expiry(pem: bytes) -> datetime:
    return _read(pem).not_valid_after_utc


def check_hosts(hosts: Sequence[str]) -> None:
    """Raise `ConfigError` for the first host that is neither a name nor an address."""
    for host in hosts:
        _general_name(host)


def _open_ca(
    ca: CertificatePair, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    authority = _read(ca.certificate)
    try:
        key = serialization.load_pem_private_key(ca.key, None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        raise ConfigError(
            "the authority's key cannot be read", f"restore it from a copy; {_NEW_CA}"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != (
        authority.public_key()
    ):
        raise ConfigError(
            "the authority's key does not belong to its certificate",
            f"restore both from one copy; {_NEW_CA}",
        )
    if not _signs(authority):
        raise ConfigError(
            "the certificate does not belong to an authority", f"choose another folder; {_NEW_CA}"
        )
    if authority.not_valid_after_utc < now + RENEWABLE:
        raise ConfigError(
            f"the authority expires on {authority.not_valid_after_utc:%Y-%m-%d}", _NEW_CA
        )
    return authority, key


def _signs(authority: x509.Certificate) -> bool:
    try:
        find = authority.extensions.get_extension_for_class
        find(x509.SubjectKeyIdentifier)
        return find(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _read(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise ConfigError(
            "the certificate cannot be read", f"restore it from a copy; {_NEW_CA}"
        ) from None


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    # Digits and dots that are not an address are a mistyped one, although a valid name.
    labels = name.removeprefix("*.").split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise ConfigError(
            f"{host[:80]!r} is not a host",
            "use the name or address that clients use, e.g. 10.0.0.5",
        )
    return x509.DNSName(name)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - SKEW)
        .not_valid_after(end.astimezone(UTC))
    )


def _usage(
    digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(identifier: x509.SubjectKeyIdentifier) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
