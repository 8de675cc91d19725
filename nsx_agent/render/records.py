"""DNS records of a service (Kubernetes DNS-Based Service Discovery, 1.1.0)."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from common.errors import Terminal
from common.messages import ServiceItem
from nsx_agent.model import Key, RecordKey, Value
from nsx_agent.render import addresses

TTL_S = 5
"""Short: answers are local and cheap, and a client must not hold on to a pod that left."""
NAME_BYTES_MAX: Final = 253
_LABEL = re.compile(r"[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9])?\Z")


Services = Mapping[str, ServiceItem]
"""By item key."""
ALIASES_MAX: Final = 8
"""Services that are names of each other, followed."""


def is_alias(service: ServiceItem, domain: str) -> bool:
    """Whether the service is another name of something in the cluster."""
    return service.external_name.rstrip(".").endswith(f".svc.{domain}")


def render(service: ServiceItem, domain: str, others: Services) -> dict[Key, Value]:
    """Records of one service. Raises ``Terminal`` for names that DNS cannot carry.

    The resolver follows a CNAME only outside of the cluster, so an alias of ``others`` has their addresses itself.
    """
    base = f"{_name(service.name)}.{_name(service.namespace)}.svc.{domain}."
    found: dict[tuple[str, bool], list[str]] = {}

    def add(name: str, record: str, redirect: bool = False) -> None:
        found.setdefault((name, redirect), []).append(f"{TTL_S} IN {record}")

    if service.external_name:
        end = _end(service, domain, others)
        if isinstance(end, str):
            target = ".".join(_name(label) for label in end.rstrip(".").split("."))
            add(base, f"CNAME {_whole(target)}.", redirect=True)
        else:
            for address in end:
                add(base, f"A {addresses.address(address)}")
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


def _end(service: ServiceItem, domain: str, others: Services) -> str | tuple[str, ...]:
    """Where an external name leads in the end: a name outside, or addresses (none, if there is no such service)."""
    for _ in range(ALIASES_MAX):
        if not is_alias(service, domain):
            return service.external_name
        *label, name, namespace = service.external_name.rstrip(".").removesuffix(f".svc.{domain}").split(".")[-3:]
        found = others.get(f"service/{namespace}/{name}")
        if found is None:
            return ()
        if found.external_name and not label:
            service = found
            continue
        if found.cluster_ip:
            return () if label else (found.cluster_ip,)
        return tuple(one for each in found.names if each.label == "".join(label) for one in each.addresses)
    return ()


def _headless(service: ServiceItem, base: str, add: "Adder") -> list[str]:
    """Its addresses; each one has a name of its own, which SRV records can lead to: the one given, or its digits."""
    owners: dict[str, list[str]] = {}
    for name in service.names:
        for address in map(addresses.address, name.addresses):
            if name.label:
                owners.setdefault(address, []).append(f"{_name(name.label)}.{base}")
            else:
                owners.setdefault(address, [])
                add(base, f"A {address}")
    targets: dict[str, None] = {}
    for address, named in owners.items():
        for owner in named or [f"{address.replace('.', '-')}.{base}"]:
            add(owner, f"A {address}")
            add(_reverse(address), f"PTR {owner}")
            targets[owner] = None
    return list(targets)


class Adder(Protocol):
    """Type of the collecting callback."""

    def __call__(self, name: str, record: str, redirect: bool = False) -> None: ...


def _name(label: str) -> str:
    if not _LABEL.match(label):
        raise Terminal(f"not a DNS label: {label!r:.80}")
    return label


def _whole(name: str) -> str:
    if len(name) > NAME_BYTES_MAX:
        raise Terminal(f"a DNS name of {len(name)} characters is longer than {NAME_BYTES_MAX}: {name!r:.80}")
    return name


def _reverse(address: str) -> str:
    octets: Iterable[str] = reversed(address.split("."))
    return f"{'.'.join(octets)}.in-addr.arpa."
