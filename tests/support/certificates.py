"""Throw-away certificates for brokers and clients of tests."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID_FOR = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """The PEM files of one party."""

    certificate: Path
    key: Path
    both: Path  # the key, then the certificate, as Kafka wants it


class Authority:
    """A certificate authority that lives for one test run and keeps its files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Headwater tests")
        unsigned = _unsigned(self._name, self._name, self._key.public_key())
        unsigned = unsigned.add_extension(x509.BasicConstraints(True, 0), critical=True)
        self.certificate = folder / "authority.pem"
        self.certificate.write_bytes(_pem(unsigned.sign(self._key, hashes.SHA256())))

    def issue(self, common_name: str) -> Identity:
        """Make a key and a certificate for a client, or for a server on this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        unsigned = _unsigned(_name(common_name), self._name, key.public_key())
        unsigned = unsigned.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = _pem(unsigned.sign(self._key, hashes.SHA256()))
        key_text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        stem = self._folder / common_name
        identity = Identity(
            stem.with_suffix(".crt"), stem.with_suffix(".key"), stem.with_suffix(".pem")
        )
        identity.certificate.write_bytes(certificate)
        identity.key.write_bytes(key_text)
        identity.both.write_bytes(key_text + certificate)
        return identity


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    # An hour back, for clocks that disagree.
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=start,
        not_valid_after=start + VALID_FOR,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
