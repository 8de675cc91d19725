"""DNS records of a service (Kubernetes DNS-Based Service Discovery, 1.1.0)."""

import re
from collections.abc import Iterable
from typing import Protocol

from common.errors import Terminal
from common.messages import ServiceItem
from nsx_agent.model import Key, RecordKey, Value
from nsx_agent.render import addresses

TTL_S = 5
"""Short: answers are local and cheap, and a client must not hold on to a pod that left."""
_LABEL = re.compile(r"[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9])?\Z")


def render(service: ServiceItem, domain: str) -> dict[Key, Value]:
    """Records of one service. Raises ``Terminal`` for names that DNS cannot carry."""
    base = f"{_name(service.name)}.{_name(service.namespace)}.svc.{domain}."
    found: dict[tuple[str, bool], list[str]] = {}

    def add(name: str, record: str, redirect: bool = False) -> None:
        found.setdefault((name, redirect), []).append(f"{TTL_S} IN {record}")

    if service.external_name:
        target = ".".join(_name(label) for label in service.external_name.rstrip(".").split("."))
        add(base, f"CNAME {target}.", redirect=True)
    targets: list[str] = []
    if service.cluster_ip:
        address = addresses.address(service.cluster_ip)
        add(base, f"A {address}")
        add(_reverse(address), f"PTR {base}")
        targets.append(base)
    else:
        targets += _headless(service, base, add)
    for port in service.ports:
        if port.name:
            owner = f"_{_name(port.name)}._{addresses.protocol(port.protocol)}.{base}"
            for target in targets:
                add(owner, f"SRV 0 100 {addresses.port(port.port)} {target}")
    return {RecordKey(name, redirect): tuple(sorted(set(records))) for (name, redirect), records in found.items()}


def _headless(service: ServiceItem, base: str, add: "Adder") -> list[str]:
    targets: list[str] = []
    for name in service.names:
        owner = f"{_name(name.label)}.{base}" if name.label else base
        for address in map(addresses.address, name.addresses):
            add(owner, f"A {address}")
            if name.label:
                add(_reverse(address), f"PTR {owner}")
        if name.label:
            targets.append(owner)
    return targets


class Adder(Protocol):
    """Type of the collecting callback."""

    def __call__(self, name: str, record: str, redirect: bool = False) -> None: ...


def _name(label: str) -> str:
    if not _LABEL.match(label):
        raise Terminal(f"not a DNS label: {label!r:.80}")
    return label


def _reverse(address: str) -> str:
    octets: Iterable[str] = reversed(address.split("."))
    return f"{'.'.join(octets)}.in-addr.arpa."
