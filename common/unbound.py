"""Configuration of the resolver that runs on every host: pods ask it, nsx-agent programs it."""

import ipaddress
from collections.abc import Iterable
from pathlib import Path


def unbound_conf(
    *,
    dns_address: str,
    control_socket: Path,
    pid_file: Path,
    pod_cidr: str,
    service_cidr: str,
    domain: str = "cluster.local",
    forwarders: Iterable[str] = (),
    user: str = "",
) -> str:
    """Text of ``unbound.conf``.

    ``forwarders`` are upstream servers (``ADDRESS`` or ``ADDRESS@PORT``) for names outside ``domain``; without any,
    those names are refused at once instead of being looked for in vain. ``user`` empty: stays who started it.
    Raises ``ValueError`` for an impossible address.
    """
    address = ipaddress.IPv4Address(dns_address)
    clients = [
        ipaddress.IPv4Network(pod_cidr),
        ipaddress.IPv4Network("127.0.0.0/8"),
        ipaddress.IPv4Network(service_cidr),
    ]
    servers = list(forwarders)
    lines = [
        "server:",
        f"    interface: {address}",
        "    interface: 127.0.0.1",
        # The agent may put the address on lo after unbound has started.
        "    ip-freebind: yes",
        "    do-ip6: no",
        "    num-threads: 1",
        "    so-reuseport: no",
        f'    username: "{user}"',
        '    chroot: ""',
        '    directory: "/"',
        f'    pidfile: "{pid_file}"',
        "    use-syslog: no",
        '    logfile: ""',
        "    verbosity: 0",
        "    hide-identity: yes",
        "    hide-version: yes",
        '    module-config: "iterator"',
        "    msg-cache-size: 4m",
        "    rrset-cache-size: 8m",
        "    outgoing-range: 256",
        "    num-queries-per-thread: 256",
        "    access-control: 0.0.0.0/0 refuse",
        *(f"    access-control: {client} allow" for client in clients),
        f'    local-zone: "{domain}." static',
        f'    local-data: "{domain}. 60 IN SOA ns.dns.{domain}. hostmaster.{domain}. 1 7200 1800 86400 5"',
        '    local-zone: "10.in-addr.arpa." static' if _private_ten(clients) else "",
    ]
    if not servers:
        lines.append('    local-zone: "." refuse')
    lines += [
        "remote-control:",
        "    control-enable: yes",
        f'    control-interface: "{control_socket}"',
        "    control-use-cert: no",
    ]
    if servers:
        lines += ["forward-zone:", '    name: "."', *(f"    forward-addr: {server}" for server in servers)]
    return "\n".join(line for line in lines if line) + "\n"


def _private_ten(networks: Iterable[ipaddress.IPv4Network]) -> bool:
    ten = ipaddress.IPv4Network("10.0.0.0/8")
    return any(network.subnet_of(ten) for network in networks)
