"""Certificates of our own, where the operator has none: an authority and one server certificate."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from schemas.errors import SettingsInvalid

# Clients refuse server certificates of a longer life.
_VALID_FOR = datetime.timedelta(days=397)
_RENEW_BEFORE = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Certificates:
    """PEM files; `authority` is what clients trust."""

    authority: Path
    certificate: Path
    key: Path


def own_certificates(folder: Path, hosts: Sequence[str]) -> Certificates:
    """Certificates for a server that is called by `hosts`, made in `folder` where none are good.

    The authority's key is thrown away once it has signed, so that nobody can sign with it.
    """
    found = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    if not _good(found, hosts):
        folder.mkdir(parents=True, exist_ok=True)
        _make(found, hosts)
    return found


def _make(files: Certificates, hosts: Sequence[str]) -> None:
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = named("Headwater federation")
    authority = unsigned(authority_name, authority_name, authority_key.public_key())
    authority = authority.add_extension(x509.BasicConstraints(True, 0), critical=True)
    server = unsigned(named(hosts[0]), authority_name, server_key.public_key())
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    server = server.add_extension(names, critical=False)
    _write(files.key, private_pem(server_key))
    _write(files.authority, signed(authority, authority_key))
    _write(files.certificate, signed(server, authority_key))


def _good(files: Certificates, hosts: Sequence[str]) -> bool:
    if not (files.authority.is_file() and files.certificate.is_file() and files.key.is_file()):
        return False
    found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    lasts = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > _RENEW_BEFORE
    return lasts and all(_general_name(host) in list(names) for host in hosts)


def unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    """A certificate that still wants its extensions and a signature."""
    # An hour back, for clocks that disagree.
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=start,
        not_valid_after=start + _VALID_FOR,
    )


def signed(certificate: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    """PEM."""
    return certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def named(common_name: str) -> x509.Name:
    """A name of nothing but this."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def check_pair(certificate: Path, key: Path) -> None:
    """Raises SettingsInvalid where the files are no certificate and the key of it."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        raise SettingsInvalid(
            f"{certificate} and {key} are no certificate and its key: {error.strerror or error}.",
            "Give two PEM files that belong together.",
        ) from None
