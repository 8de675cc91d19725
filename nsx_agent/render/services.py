"""A service becomes balancer slots: as many as it has backends, each a map element, so every backend is hit equally.

A service port with n backends leads (``services``) to chain ``lb_n``, which draws a slot below n and looks up
(service, slot) in ``slots``. One endpoint more or less touches at most three elements, whatever else exists. Should
the draw meet a table that changed in between, the chain's second rule falls back on slot 0.

A node port of a service that answers outsiders from their own host only (``externalTrafficPolicy: Local``) has the
pods and hosts of the cluster go to all backends nevertheless (``nearports``, slots from ``NEAR`` on).

With session affinity the slot holds an identifier instead, and ``affinity`` remembers the identifier per client.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from common.errors import Terminal
from common.messages import ServiceItem, ServicePort
from nsx_agent.model import ChainKey, ChainSpec, ElementKey, Key, Value
from nsx_agent.render import addresses

Slots = Mapping[str, tuple[str, ...]]
"""Port key (``tcp/80``, ``node/tcp/30080``, ``near/tcp/30080``) -> backends in slot order, as ``address . port``."""


STANDING_MAX: Final = 32
AFFINITY_S_MAX: Final = 86400
NEAR: Final = 1 << 16
"""First slot of the backends that a node port has for the cluster itself, where those for outsiders are others."""


def assign(before: tuple[str, ...], now: Iterable[str]) -> tuple[str, ...]:
    """Slot order of ``now`` that differs least from ``before``: gaps are filled with newcomers, then from the end."""
    wanted = set(now)
    newcomers = sorted(wanted - set(before), reverse=True)
    slots: list[str | None] = [one if one in wanted else None for one in before]
    for index, one in enumerate(slots):
        if one is None and newcomers:
            slots[index] = newcomers.pop()
    full: list[str | None] = [*slots, *reversed(newcomers)]
    while None in full:
        last = full.pop()
        if last is not None:
            full[full.index(None)] = last
    return tuple(one for one in full if one is not None)


def slots_of(service: ServiceItem, before: Slots, dead: frozenset[str], host: str) -> dict[str, tuple[str, ...]]:
    """Slot order per port of ``service``, keeping what ``before`` had. Backends on ``dead`` hosts get none."""
    slots: dict[str, tuple[str, ...]] = {}
    for port in service.ports:
        proto, number = addresses.protocol(port.protocol), addresses.port(port.port)
        if service.cluster_ip:
            key = f"{proto}/{number}"
            slots[key] = assign(before.get(key, ()), _backends(port, dead, host if service.internal_local else ""))
        if port.node_port:
            where = f"{proto}/{addresses.port(port.node_port)}"
            for key in (f"node/{where}", f"near/{where}")[: 2 if service.external_local else 1]:
                only = host if service.external_local and key.startswith("node/") else ""
                slots[key] = assign(before.get(key, ()), _backends(port, dead, only))
    return slots


def _backends(port: ServicePort, dead: frozenset[str], only: str) -> list[str]:
    """Who gets new connections, of those on host ``only`` if it is given."""
    found = [one for one in port.backends if one.host not in dead and (not only or one.host == only)]
    chosen = [one for one in found if not one.fallback] or found
    return [f"{addresses.address(one.address)} . {addresses.port(one.port)}" for one in chosen]


def standing() -> dict[Key, Value]:
    """Chains for usual numbers of backends, there from the start: a change among them touches elements only."""
    pairs = (_chain(kind, count, 0) for count in range(1, STANDING_MAX + 1) for kind in ("", "node"))
    return {ChainKey(name): spec for name, spec in pairs}


def render(service: ServiceItem, slots: Slots) -> dict[Key, Value]:
    """Entries of one service. Raises ``Terminal`` for an impossible one."""
    if not 0 <= service.affinity_s <= AFFINITY_S_MAX:
        raise Terminal(f"session affinity of {service.affinity_s} s; give at most {AFFINITY_S_MAX}")
    entries: dict[Key, Value] = {}
    cluster_ip = addresses.address(service.cluster_ip) if service.cluster_ip else ""
    for key, backends in slots.items():
        *kinds, proto, number = key.split("/")
        kind = kinds[0] if kinds else ""
        where = f"{proto} . {number}" if kind else f"{cluster_ip} . {proto} . {number}"
        if not backends:
            if kind == ("near" if service.external_local else "node"):
                entries[ElementKey("closedports", where)] = ""
            continue
        name, chain = _chain(kind, len(backends), service.affinity_s)
        entries[ChainKey(name)] = chain
        entries[ElementKey(f"{kind}ports" if kind else "services", where)] = f"goto {name}"
        maps, first = "node" if kind else "", NEAR if kind == "near" else 0
        for slot, backend in enumerate(backends, first):
            if service.affinity_s:
                identifier = _identifier(backend)
                entries[ElementKey(f"{maps}sticky", f"{where} . {slot}")] = str(identifier)
                entries[ElementKey(f"{maps}stickers", f"{where} . {identifier}")] = backend
            else:
                entries[ElementKey(f"{maps}slots", f"{where} . {slot}")] = backend
    return entries


def _identifier(backend: str) -> int:
    """31 bits, never 0: a name for a backend that outlives its slot."""
    return int.from_bytes(hashlib.blake2b(backend.encode(), digest_size=4).digest(), "big") & 0x7FFFFFFF or 1


def _chain(kind: str, count: int, affinity_s: int) -> tuple[str, ChainSpec]:
    """Name and rules; ``kind`` is empty for a service's own address, else ``node`` or ``near``."""
    maps, first = "node" if kind else "", NEAR if kind == "near" else 0
    where = f"{'' if kind else 'ip daddr . '}meta l4proto . th dport . meta mark"
    draw = f"meta mark set numgen random mod {count}" + (f" offset {first}" if first else "")
    if not affinity_s:
        pick = f"dnat ip to {where} map @{maps}slots"
        return f"{kind}lb_{count}", ChainSpec((draw, pick, f"meta mark set {first}", pick))
    client = "ip saddr . ip daddr . meta l4proto . th dport"
    remember = f"update @affinity {{ {client} timeout {affinity_s}s : meta mark }}"
    pick = f"dnat ip to {where} map @{maps}stickers"
    translate = f"meta mark set {where} map @{maps}sticky"
    return f"{kind}sticky_{count}_{affinity_s}", ChainSpec(
        (
            f"meta mark set {client} map @affinity",
            remember,
            pick,
            f"delete @affinity {{ {client} : meta mark }}",
            draw,
            translate,
            remember,
            pick,
        )
    )
