"""An operator's own certificate is looked at before anything is started with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.tls import check_pair, own_certificates
from schemas.errors import SettingsInvalid


def test_a_certificate_needs_the_key_that_it_was_made_with(tmp_path: Path) -> None:
    ours = own_certificates(tmp_path / "ours", ["127.0.0.1"])
    others = own_certificates(tmp_path / "others", ["127.0.0.1"])
    check_pair(ours.certificate, ours.key)
    for certificate, key in (
        (ours.certificate, others.key),
        (ours.certificate, tmp_path / "missing"),
        (ours.key, ours.key),
    ):
        with pytest.raises(SettingsInvalid, match="no certificate and its key"):
            check_pair(certificate, key)
