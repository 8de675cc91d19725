"""After a commit: the running flows it left behind, found in connection tracking and deleted one by one.

Two reasons: a UDP flow that would go on to an endpoint that is no backend any more (or past a service that has some
now), and a flow of any protocol that the policies forbid now. Everything else is left alone. TCP that loses its entry
stops at once, since no flow may be picked up from its middle (``nf_conntrack_tcp_loose`` is 0).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from common.logs import logger
from nsx_agent import flows
from nsx_agent.apply import Kernel
from nsx_agent.flows import Balanced, Verdicts
from nsx_agent.intent import Intent
from nsx_agent.kernel.conntrack import Flow
from nsx_agent.model import Change, DropElement, ElementKey, Key, PutElement, Value

log = logger("cuts")
BACKEND_MAPS: Final = frozenset({"slots", "stickers", "nodeslots", "nodestickers", "hostports", "ownports"})
FRONT_MAPS: Final = frozenset({"services", "nodeports", "nearports", "hostports", "ownports"})
NODE_MAPS: Final = frozenset({"nodeports", "nearports", "nodeslots", "nodestickers", "ownports"})
"""Their keys have no address: every address of a host is meant."""


def cut_flows(kernel: Kernel, intent: Intent, done: Iterable[Change], namespaces: frozenset[str]) -> int:
    """Delete what ``done`` left behind. Returns how many flows."""
    done = tuple(done)
    removed, fresh = balancer_changes(done)
    verdicts = _verdicts(intent, namespaces, new_ports(done))
    if not removed and not fresh and not verdicts:
        return 0
    addresses = frozenset(one.backend for one in removed) | {address for address, _ in fresh if address}
    node_ports = any(not address for address, _ in fresh)
    running = kernel.flows(addresses | verdicts.keys(), udp=node_ports)
    condemned = flows.orphaned(running, removed, fresh, intent.host_addresses())
    condemned += flows.forbidden(running, verdicts, frozenset({intent.site.dns_address}))
    return _drop(kernel, condemned)


def sweep(kernel: Kernel, intent: Intent) -> int:
    """Delete every flow that today's intent would not let begin, or would lead elsewhere. Returns how many.

    For when it is not known which changes the flows outlived: after a start, or after our table was away.
    """
    verdicts = _verdicts(intent, intent.local_namespaces(), frozenset())
    running = kernel.flows(frozenset(verdicts), udp=True)
    condemned = flows.astray(running, _backends(intent.composite.entries), intent.host_addresses(), intent.site)
    condemned += flows.forbidden(running, verdicts, frozenset({intent.site.dns_address}))
    return _drop(kernel, condemned)


def _verdicts(intent: Intent, namespaces: Iterable[str], fresh: frozenset[str]) -> dict[str, Verdicts]:
    """A judge per local pod that somebody may forbid something; ``fresh`` pods are just put in force."""
    verdicts: dict[str, Verdicts] = {}
    for namespace in sorted(namespaces):
        firewall = intent.firewall(namespace)
        if firewall.complete and not firewall.policies:
            continue  # nobody in it is isolated, so nothing is forbidden
        if not firewall.complete and fresh.issuperset(firewall.local):
            continue  # none of these pods has a route yet, and none gets one before the namespace is complete
        judge = Verdicts(firewall)
        verdicts |= dict.fromkeys(firewall.local, judge)
    return verdicts


def _drop(kernel: Kernel, condemned: Iterable[Flow]) -> int:
    unique = {flow.original: flow for flow in condemned}
    for flow in unique.values():
        kernel.drop_flow(flow)
    if unique:
        log.info("cut flows", flows=len(unique))
    return len(unique)


def _backends(entries: Mapping[Key, Value]) -> dict[tuple[str, int], set[tuple[str, int]]]:
    """(service address or empty for node ports, port) -> backends of UDP."""
    found: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for key, value in entries.items():
        if isinstance(key, ElementKey) and key.set in BACKEND_MAPS and isinstance(value, str):
            balanced = _balanced(key.set, key.key, value)
            if balanced is not None:
                found.setdefault((balanced.address, balanced.port), set()).add(
                    (balanced.backend, balanced.backend_port)
                )
    return found


def balancer_changes(done: Iterable[Change]) -> tuple[frozenset[Balanced], frozenset[tuple[str, int]]]:
    """UDP backends that left, and (service address or empty for a node port, port) that are new."""
    before: set[Balanced] = set()
    after: set[Balanced] = set()
    fresh: set[tuple[str, int]] = set()
    for change in done:
        if not isinstance(change, PutElement | DropElement):
            continue
        if change.set in FRONT_MAPS and isinstance(change, PutElement) and change.replaces is None:
            address, protocol, port = _front(change.set, change.key)
            if protocol == "udp":
                fresh.add((address, port))
        if change.set not in BACKEND_MAPS:
            continue
        if isinstance(change, PutElement):
            after.update(_some(_balanced(change.set, change.key, change.data)))
            if change.replaces is not None:
                before.update(_some(_balanced(change.set, change.key, change.replaces)))
        else:
            before.update(_some(_balanced(change.set, change.key, change.data)))
    return frozenset(before - after), frozenset(fresh)


def new_ports(done: Iterable[Change]) -> frozenset[str]:
    """Addresses of local pods whose port was not in force before ``done``."""
    put = (change for change in done if isinstance(change, PutElement) and change.set == "ports")
    return frozenset(change.key.rpartition(" . ")[2] for change in put if change.replaces is None)


def _front(name: str, key: str) -> tuple[str, str, int]:
    """(address or empty, protocol, port) of a balancer's key; what follows the port does not matter."""
    fields = key.split(" . ")
    if name in NODE_MAPS:
        fields.insert(0, "")
    return "" if name == "hostports" else fields[0], fields[1], int(fields[2])


def _balanced(name: str, key: str, data: str) -> Balanced | None:
    """What an element of a balancer's map says; None if it is not about UDP."""
    address, protocol, port = _front(name, key)
    if protocol != "udp":
        return None
    backend, backend_port = data.split(" . ")
    return Balanced(address, port, backend, int(backend_port))


def _some(one: Balanced | None) -> tuple[Balanced, ...]:
    return () if one is None else (one,)
