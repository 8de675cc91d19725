"""Configuration of nsx-agent, and every limit in it. Reference: README.md."""

import ipaddress
from pathlib import Path
from typing import Final

from common.errors import ConfigError
from common.mqtt import Broker
from common.settings import Settings, TlsFiles
from nsx_agent.render import addresses
from nsx_agent.render.skeleton import Site

AUDIT_S: Final = 60.0
"""A look at the kernel without a reason: links, routes, the table's stamp."""
RESYNC_S: Final = 2.0
"""A scope that does not match its manifest for this long is subscribed to anew."""
DNS_LOOK_S: Final = 1.0
"""How often the resolver's socket is looked at (one stat call): a restarted resolver has lost its records."""
SUSPECT_S: Final = 0.1
"""From hearing of a change that is not ours to the look at it: one look for many changes."""
HEAL_S_MIN: Final = 1.0
"""Between two replacements of a table that somebody else keeps changing."""
PASS_S_MIN: Final = 0.5
"""Between two passes that nobody asked for."""
STORE_AGAIN_S: Final = 10.0
"""Until a disk that refused the intent is tried again."""
FAILURES_MAX: Final = 100
"""Failed items a watermark names: it must fit into a message."""
CNI_TIMEOUT_S_MAX: Final = 120.0

assert RESYNC_S < AUDIT_S


class Metrics(Settings, frozen=True, kw_only=True):
    """``[metrics]``: HTTPS listener of /metrics, /healthz, /readyz."""

    listen: str
    tls: TlsFiles


class Dns(Settings, frozen=True, kw_only=True):
    """``[dns]``: the address pods ask, unbound's control socket, the cluster domain."""

    address: str
    control_socket: Path
    domain: str = "cluster.local"


class Config(Settings, frozen=True, kw_only=True):
    """Top level of the file."""

    host: str
    underlay_address: str
    underlay_device: str
    state_dir: Path
    broker: Broker
    socket: Path
    """CNI requests: one JSON object a line."""
    metrics: Metrics
    dns: Dns
    pod_cidr: str = "10.64.0.0/12"
    service_cidr: str = "10.96.0.0/16"


def site(config: Config) -> Site:
    """The checked part that rendering needs. Raises ``ConfigError`` naming key and cure."""
    device = config.underlay_device
    if not 0 < len(device) < 16 or not all(one.isalnum() or one in "._-" for one in device):
        raise ConfigError(f"underlay_device {device!r}: not an interface name; see `ip link`")
    networks: dict[str, str] = {}
    for key in ("pod_cidr", "service_cidr"):
        try:
            networks[key] = str(ipaddress.IPv4Network(getattr(config, key)))
        except ValueError as err:
            raise ConfigError(f"{key}: {err}; give an IPv4 network such as 10.64.0.0/12") from err
    found: dict[str, str] = {}
    for key, value in (("underlay_address", config.underlay_address), ("dns.address", config.dns.address)):
        try:
            found[key] = str(ipaddress.IPv4Address(value))
        except ValueError as err:
            raise ConfigError(f"{key}: {err}; give a plain IPv4 address") from err
    if addresses.cidr(networks["pod_cidr"]).overlaps(addresses.cidr(networks["service_cidr"])):
        raise ConfigError("pod_cidr and service_cidr overlap; give ranges apart from each other")
    if not config.dns.domain or not all(one.isalnum() or one in ".-" for one in config.dns.domain):
        raise ConfigError(f"dns.domain {config.dns.domain!r}: not a domain name")
    return Site(
        host=config.host,
        underlay_address=found["underlay_address"],
        underlay_device=device,
        pod_cidr=networks["pod_cidr"],
        service_cidr=networks["service_cidr"],
        dns_address=found["dns.address"],
        domain=config.dns.domain.strip("."),
    )
