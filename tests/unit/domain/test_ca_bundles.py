"""Bundles of certificates are read when a profile is saved, not when a broker is connected."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.fake_upstreams.certificate import make
from tidegate.domain.ca_bundles import check_ca
from tidegate.errors import InvalidInput


@pytest.fixture
def pem(tmp_path: Path) -> str:
    return make(tmp_path)[0].read_text()


def test_certificates_are_accepted(pem: str, tmp_path: Path) -> None:
    other = make(tmp_path / "other")[0].read_text()
    for good in (pem, f"# one\n{pem}\n# two\n{other}", pem + pem, pem.replace("\n", "\r\n")):
        assert check_ca(good) == good


def test_anything_else_is_refused(pem: str, tmp_path: Path) -> None:
    key = (tmp_path / "server.key").read_text()
    broken = pem.replace("M", "N", 1)
    for wrong, why in (
        ("", "no certificate"),
        ("pem", "no certificate"),
        (key, "PRIVATE KEY"),
        (pem + key, "PRIVATE KEY"),
        (pem[:-40], "without its end"),
        (broken, "Certificate 1"),
        (pem + broken, "Certificate 2"),
        (f"# é\n{pem}", "ASCII"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "Certificate 1"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "Certificate 1"),
    ):
        with pytest.raises(InvalidInput, match=why) as refused:
            check_ca(wrong)
        assert not wrong[40:60] or wrong[40:60] not in refused.value.message
