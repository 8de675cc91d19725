"""The end of a loaded certificate is known to Prometheus, whatever form its date has."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import REGISTRY, CollectorRegistry

from common import certificates, metrics
from common.settings import TlsFiles
from common.tls import client_context
from sphere import pki

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 60)])


def _pem(end: datetime) -> str:
    builder = x509.CertificateBuilder(NAME, NAME, KEY.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(datetime(1990, 1, 1, tzinfo=UTC)).not_valid_after(end).sign(KEY, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("year", [1999, 2026, 2049, 2050, 2069, 2120])
def test_dates_of_both_forms(year: int) -> None:
    end = datetime(year, 11, 26, 12, 34, 56, tzinfo=UTC)
    assert certificates.not_after(_pem(end)) == end.timestamp()


def test_the_first_of_a_chain_counts() -> None:
    first, second = datetime(2030, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
    assert certificates.not_after("Subject: x\n" + _pem(first) + _pem(second)) == first.timestamp()


@pytest.mark.parametrize("junk", ["", "junk", _pem(datetime(2030, 1, 1, tzinfo=UTC))[:200]])
def test_what_is_no_certificate(junk: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        certificates.not_after(junk)


def _known(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value("sphere_certificate_expiry_timestamp_seconds", {"certificate": name})


def test_a_process_tells_of_what_it_has_loaded(tmp_path: Path) -> None:
    pki.ensure(tmp_path, [pki.Identity("mine", "mine"), pki.Identity("other", "other")])
    files = TlsFiles(ca=tmp_path / "ca.crt", cert=tmp_path / "mine.crt", key=tmp_path / "mine.key")
    client_context(files)
    # spherelet and sphere-controller show the library's own registry, nsx-agent one of its own.
    for registry in (REGISTRY, metrics.registry()):
        end = _known(registry, "mine")
        assert end is not None
        assert abs(end - (datetime.now(UTC) + pki.LEAF_LIFE).timestamp()) < 3600
        assert _known(registry, "other") is None
    # A file that was renewed is not in use before it is loaded again.
    later = datetime.now(UTC) + pki.LEAF_LIFE - timedelta(days=1)
    pki.ensure(tmp_path, [pki.Identity("mine", "mine")], later)
    assert _known(REGISTRY, "mine") == end
    client_context(files)
    assert _known(REGISTRY, "mine") == certificates.not_after(files.cert.read_text()) > end
