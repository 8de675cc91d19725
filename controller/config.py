"""Configuration of sphere-controller. What a person may tune is here, with its unit in its name."""

from ipaddress import ip_address, ip_network
from pathlib import Path

from common.errors import ConfigError
from common.mqtt import Broker
from common.settings import Settings, TlsFiles


class EtcdSettings(Settings, frozen=True, kw_only=True):
    """``tls`` may be left out only when every endpoint is ``http://``."""

    endpoints: tuple[str, ...]
    tls: TlsFiles | None = None


class SignerSettings(Settings, frozen=True, kw_only=True):
    """The CA that signs approved CertificateSigningRequests: PEM files. The API trusts it; nobody else should."""

    cert: Path
    key: Path


class ApiSettings(Settings, frozen=True, kw_only=True):
    """``listen`` is host:port, or empty when only inherited sockets are served. ``advertise`` is what pods reach.

    Without ``signer`` certificate requests are decided on, but not signed.
    """

    listen: str
    advertise: str
    tls: TlsFiles
    service_account_key: Path
    service_account_issuer: str = "https://kubernetes.default.svc.cluster.local"
    signer: SignerSettings | None = None


class SphereletSettings(Settings, frozen=True, kw_only=True):
    """This controller's identity towards spherelets."""

    tls: TlsFiles


class NetworkSettings(Settings, frozen=True, kw_only=True):
    """Address plan. ``block_prefix`` sizes a host's block of a segment, ``segment_prefix`` a namespace's subnet."""

    pod_cidr: str = "10.64.0.0/12"
    service_cidr: str = "10.96.0.0/16"
    dns_address: str = "10.96.0.10"
    cluster_domain: str = "cluster.local"
    block_prefix: int = 28
    segment_prefix: int = 22


class ControllerSettings(Settings, frozen=True, kw_only=True):
    """The whole file."""

    etcd: EtcdSettings
    api: ApiSettings
    spherelet: SphereletSettings
    broker: Broker
    network: NetworkSettings = NetworkSettings()

    def __post_init__(self) -> None:
        _check(self)


def _check(settings: ControllerSettings) -> None:
    """Relations between values. Raises ``ConfigError`` that names the keys and the cure."""
    network = settings.network
    try:
        pods, services = ip_network(network.pod_cidr), ip_network(network.service_cidr)
        dns, _ = ip_address(network.dns_address), ip_address(settings.api.advertise)
    except ValueError as err:
        raise ConfigError(f"[network] and api.advertise: {err}") from err
    if pods.overlaps(services):
        raise ConfigError(f"network.pod_cidr {pods} and network.service_cidr {services} overlap; choose disjoint ones")
    if dns not in services:
        raise ConfigError(f"network.dns_address {dns} is outside of network.service_cidr {services}")
    if not pods.prefixlen < network.segment_prefix <= network.block_prefix <= pods.max_prefixlen - 2:
        raise ConfigError("network: needs pod_cidr's prefix < segment_prefix <= block_prefix <= 30")
    if not settings.etcd.endpoints:
        raise ConfigError("etcd.endpoints is empty; name at least one URL such as https://127.0.0.1:2379")
    if settings.etcd.tls is None and any(url.startswith("https") for url in settings.etcd.endpoints):
        raise ConfigError("etcd.tls is missing, but an endpoint is https; add ca, cert and key")
