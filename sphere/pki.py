"""The cluster's certificate authority: one CA, one identity per process (group = organization). EC P-256.

A second CA, ``signer``, signs what users ask for by CertificateSigningRequest. The API alone trusts it: whatever name
such a certificate bears, etcd, the broker and the hosts do not know it.

Kept over `sphere up` and `down`; an identity is made anew when it is near its end, does not fit what is asked of it
any more, or was signed by another CA. Files: ``<name>.crt`` and ``<name>.key`` (mode 0600).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sphere import topology
from sphere.secret_files import write_private

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class Identity:
    """What a certificate says. ``names`` are DNS names and addresses of a server; empty for a pure client."""

    file: str
    common_name: str
    group: str = ""
    names: tuple[str, ...] = ()


def identities(host_count: int) -> tuple[Identity, ...]:
    """Every identity of a one-machine cluster of ``host_count`` hosts."""
    return identities_of(
        control=[(topology.CONTROL, str(topology.control().address))],
        hosts=[(host.name, str(host.address)) for host in topology.hosts(host_count)],
        kubernetes_service=str(topology.KUBERNETES_SERVICE),
        domain=topology.CLUSTER_DOMAIN,
    )


def identities_of(
    *, control: Sequence[tuple[str, str]], hosts: Sequence[tuple[str, str]], kubernetes_service: str, domain: str
) -> tuple[Identity, ...]:
    """Every identity of a cluster. Machines are (name, address); the control plane's run all of its servers."""
    own = ("localhost", *(name for name, _ in control), "127.0.0.1", *(address for _, address in control))
    in_cluster = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}")
    fixed = [
        Identity("admin", "kubernetes-admin", "system:masters"),
        Identity("apiserver", "kube-apiserver", names=(*own, *in_cluster, kubernetes_service)),
        Identity("controller", "sphere-controller", "sphere:controllers", (topology.CONTROLLER_NAME,)),
        Identity("prometheus", "prometheus", "system:monitoring"),
        Identity("etcd", "etcd", names=own),
        Identity("broker", "mosquitto", names=own),
    ]
    for name, address in hosts:
        names = (name, address)
        fixed.append(Identity(f"{name}-spherelet", f"system:node:{name}", "system:nodes", names))
        fixed.append(Identity(f"{name}-agent", name, "sphere:agents", names))
    return tuple(fixed)


def ensure(directory: Path, wanted: Iterable[Identity], now: datetime | None = None) -> tuple[str, ...]:
    """Make what is missing or near its end. Returns the names of the files made anew."""
    now = now or datetime.now(UTC)
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    made: list[str] = []
    authority = _authority(directory, "ca", now)
    if authority is None:
        authority = _make_authority(directory, "ca", "sphere-ca", now)
        made.append("ca")
    if _authority(directory, "signer", now) is None:
        _make_authority(directory, "signer", "sphere-client-signer", now)
        made.append("signer")
    for identity in wanted:
        held = _load(directory, identity.file)
        if held is None or not _fits(held[0], identity, authority[0], now):
            _issue(directory, identity, authority, now)
            made.append(identity.file)
    signing = directory / "service-account.key"
    if not signing.exists():
        write_private(signing, _pem(ec.generate_private_key(ec.SECP256R1())))
        made.append("service-account")
    return tuple(made)


def has_authority(directory: Path) -> bool:
    """Whether ``ensure`` would go on with the authority that is there."""
    return _authority(directory, "ca", datetime.now(UTC)) is not None


Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _authority(directory: Path, file: str, now: datetime) -> Pair | None:
    held = _load(directory, file)
    return None if held is None or held[0].not_valid_after_utc - now < RENEW_BEFORE else held


def _load(directory: Path, name: str) -> Pair | None:
    """Certificate and key; None when either is missing or damaged (a power cut while writing)."""
    try:
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / f"{name}.key").read_bytes(), password=None)
    except (OSError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return certificate, key


def _fits(certificate: x509.Certificate, identity: Identity, authority: x509.Certificate, now: datetime) -> bool:
    if certificate.not_valid_after_utc - now < RENEW_BEFORE or certificate.subject != _subject(identity):
        return False
    try:
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        held = x509.SubjectAlternativeName([])
    if set(held) != set(_alternative_names(identity)):
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # whatever the reason, a certificate that does not verify is replaced
        return False
    return True


def _subject(identity: Identity) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, identity.common_name)]
    if identity.group:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.group))
    return x509.Name(attributes)


def _alternative_names(identity: Identity) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for name in identity.names:
        try:
            names.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            names.append(x509.DNSName(name))
    return names


def _builder(subject: x509.Name, issuer: x509.Name, now: datetime, life: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _make_authority(directory: Path, file: str, common_name: str, now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        _builder(name, name, now, CA_LIFE)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificate_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _store(directory, file, certificate, key)
    return certificate, key


def _issue(directory: Path, identity: Identity, authority: Pair, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if identity.names:
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    issuer_key = authority[1].public_key()
    builder = (
        _builder(_subject(identity), authority[0].subject, now, LEAF_LIFE)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificate_sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )
    if identity.names:
        builder = builder.add_extension(x509.SubjectAlternativeName(_alternative_names(identity)), critical=False)
    _store(directory, identity.file, builder.sign(authority[1], hashes.SHA256()), key)


def _usage(*, certificate_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificate_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificate_sign,
        crl_sign=certificate_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _store(directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    write_private(directory / f"{name}.key", _pem(key))
    path = directory / f"{name}.crt"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.chmod(0o644)
