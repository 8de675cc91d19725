"""The cluster's certificates: kept while they fit, made anew when they do not."""

import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from sphere import pki


def _certificate(directory: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes())


def test_second_call_changes_nothing(tmp_path: Path) -> None:
    wanted = pki.identities(2)
    assert set(pki.ensure(tmp_path, wanted)) == {"ca", "signer", "service-account", *(one.file for one in wanted)}
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert pki.ensure(tmp_path, wanted) == ()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_keys_are_private(tmp_path: Path) -> None:
    pki.ensure(tmp_path, pki.identities(1))
    keys = list(tmp_path.glob("*.key"))
    assert len(keys) == len(pki.identities(1)) + 3
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


@pytest.mark.parametrize(
    ("file", "name", "group"),
    [
        ("admin", "kubernetes-admin", "system:masters"),
        ("controller", "sphere-controller", "sphere:controllers"),
        ("prometheus", "prometheus", "system:monitoring"),
        ("host-1-spherelet", "system:node:host-1", "system:nodes"),
        ("host-1-agent", "host-1", "sphere:agents"),
    ],
)
def test_subjects(tmp_path: Path, file: str, name: str, group: str) -> None:
    pki.ensure(tmp_path, pki.identities(1))
    subject = _certificate(tmp_path, file).subject
    assert subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == group


def test_api_server_is_known_by_each_of_its_names(tmp_path: Path) -> None:
    pki.ensure(tmp_path, pki.identities(1))
    names = _certificate(tmp_path, "apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "kubernetes", "kubernetes.default.svc"} <= set(names.get_values_for_type(x509.DNSName))
    addresses = set(names.get_values_for_type(x509.IPAddress))
    assert addresses == {ip_address(one) for one in ("127.0.0.1", "172.30.0.2", "10.96.0.1")}


def test_near_its_end_a_certificate_is_renewed_and_the_authority_kept(tmp_path: Path) -> None:
    wanted = pki.identities(1)
    pki.ensure(tmp_path, wanted)
    later = datetime.now(UTC) + pki.LEAF_LIFE - pki.RENEW_BEFORE + timedelta(days=1)
    assert set(pki.ensure(tmp_path, wanted, later)) == {one.file for one in wanted}


def test_whether_there_is_an_authority_is_asked_without_making_one(tmp_path: Path) -> None:
    assert not pki.has_authority(tmp_path)
    pki.ensure(tmp_path, [])
    assert pki.has_authority(tmp_path)
    (tmp_path / "ca.key").unlink()
    assert not pki.has_authority(tmp_path)
    assert not (tmp_path / "ca.key").exists()


def test_a_lost_authority_renews_all(tmp_path: Path) -> None:
    wanted = pki.identities(1)
    pki.ensure(tmp_path, wanted)
    (tmp_path / "ca.key").unlink()
    assert set(pki.ensure(tmp_path, wanted)) == {"ca", *(one.file for one in wanted)}


def test_what_users_get_signed_chains_to_an_authority_of_its_own(tmp_path: Path) -> None:
    pki.ensure(tmp_path, pki.identities(1))
    with pytest.raises((ValueError, InvalidSignature)):
        _certificate(tmp_path, "signer").verify_directly_issued_by(_certificate(tmp_path, "ca"))


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    pki.ensure(tmp_path, pki.identities(1))
    (tmp_path / "etcd.crt").write_bytes(damage)
    assert pki.ensure(tmp_path, pki.identities(1)) == ("etcd",)


def test_changed_names_are_certified_anew(tmp_path: Path) -> None:
    pki.ensure(tmp_path, [pki.Identity("server", "server", names=("a",))])
    assert pki.ensure(tmp_path, [pki.Identity("server", "server", names=("a", "10.0.0.1"))]) == ("server",)
