"""Throw-away certificates for brokers and clients of tests."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from infra.tls import named, private_pem, signed, unsigned


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
        self._name = named("Headwater tests")
        wanted = unsigned(self._name, self._name, self._key.public_key())
        wanted = wanted.add_extension(x509.BasicConstraints(True, 0), critical=True)
        self.certificate = folder / "authority.pem"
        self.certificate.write_bytes(signed(wanted, self._key))

    def issue(self, common_name: str) -> Identity:
        """Make a key and a certificate for a client, or for a server on this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        wanted = unsigned(named(common_name), self._name, key.public_key())
        wanted = wanted.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = signed(wanted, self._key)
        key_text = private_pem(key)
        stem = self._folder / common_name
        identity = Identity(
            stem.with_suffix(".crt"), stem.with_suffix(".key"), stem.with_suffix(".pem")
        )
        identity.certificate.write_bytes(certificate)
        identity.key.write_bytes(key_text)
        identity.both.write_bytes(key_text + certificate)
        return identity
