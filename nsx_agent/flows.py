"""Which running flows a change forbids. Pure: the same decisions as the rendered rules, taken over plain data."""

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from common.errors import Terminal
from common.messages import PolicyItem, PolicyPort, PolicyRule
from nsx_agent.kernel.conntrack import Flow
from nsx_agent.render.firewall import PAIR_PORT, Direction, NamespaceFirewall, networks
from nsx_agent.render.skeleton import Site


class Verdicts:
    """Answers for one namespace's pods on this host."""

    def __init__(self, firewall: NamespaceFirewall) -> None:
        self._firewall = firewall
        self._members: dict[str, Callable[[str], bool]] = {}
        self._selected: dict[str, frozenset[str]] = {}

    def allows(self, direction: Direction, pod: str, peer: str, protocol: str, destination: str, port: int) -> bool:
        """Whether ``pod``'s policies allow traffic with ``peer`` in ``direction``."""
        if not self._firewall.complete:
            return False
        isolated = False
        for policy in self._firewall.policies.values():
            rules = policy.ingress if direction == "ingress" else policy.egress
            if rules is None or not self._selects(policy, pod):
                continue
            isolated = True
            if any(self._matches(rule, peer, protocol, destination, port) for rule in rules):
                return True
        return not isolated

    def _selects(self, policy: PolicyItem, pod: str) -> bool:
        item = self._firewall.sets.get(policy.selected)
        if item is None:
            return True
        found = self._selected.get(policy.selected)
        if found is None:
            found = self._selected[policy.selected] = frozenset(item.members)
        return pod in found

    def _matches(self, rule: PolicyRule, peer: str, protocol: str, destination: str, port: int) -> bool:
        if not rule.any_peer and not any(self._contains(name, peer) for name in rule.sets):
            return False
        return not rule.ports or any(_port_matches(one, protocol, destination, port) for one in rule.ports)

    def _contains(self, identifier: str, peer: str) -> bool:
        test = self._members.get(identifier)
        if test is None:
            test = self._members[identifier] = self._member_test(identifier)
        return test(peer)

    def _member_test(self, identifier: str) -> Callable[[str], bool]:
        item = self._firewall.sets.get(identifier)
        try:
            texts = [] if item is None else networks(item)
        except Terminal:
            texts = []
        plain = frozenset(text for text in texts if "/" not in text)
        ranges = [ipaddress.IPv4Network(text) for text in texts if "/" in text]
        return lambda peer: peer in plain or any(ipaddress.IPv4Address(peer) in one for one in ranges)


def _port_matches(want: PolicyPort, protocol: str, destination: str, port: int) -> bool:
    if want.protocol.lower() != protocol:
        return False
    if want.port == PAIR_PORT:
        return (destination, port) in want.pairs
    return want.port == 0 or want.port <= port <= max(want.port, want.end_port)


def forbidden(flows: Iterable[Flow], verdicts: Mapping[str, Verdicts], exempt: frozenset[str]) -> list[Flow]:
    """Flows that a new look at the policies would not let begin.

    ``verdicts``: by address of each local pod that a change affected. ``exempt`` destinations are always allowed.
    """
    found: list[Flow] = []
    for flow in flows:
        if flow.backend in exempt or flow.source == flow.backend:
            continue
        source, target = verdicts.get(flow.source), verdicts.get(flow.backend)
        what = (flow.protocol, flow.backend, flow.backend_port)
        if (source is not None and not source.allows("egress", flow.source, flow.backend, *what)) or (
            target is not None and not target.allows("ingress", flow.backend, flow.source, *what)
        ):
            found.append(flow)
    return found


@dataclass(frozen=True, slots=True)
class Balanced:
    """A backend of a UDP service port. ``address`` is empty for a node port: it is that of any host."""

    address: str
    port: int
    backend: str
    backend_port: int


def orphaned(
    flows: Iterable[Flow],
    removed: frozenset[Balanced],
    fresh: frozenset[tuple[str, int]],
    hosts: frozenset[str],
) -> list[Flow]:
    """UDP flows that would go on to an endpoint that left, or past a service that has endpoints only now.

    ``fresh``: (service address or empty, port) whose balancer entries are new. ``hosts``: where node ports are.
    """
    found: list[Flow] = []
    for flow in flows:
        if flow.protocol != UDP:
            continue
        address = "" if flow.destination in hosts else flow.destination
        if _translated(flow):
            if Balanced(address, flow.port, flow.backend, flow.backend_port) in removed:
                found.append(flow)
        elif (address, flow.port) in fresh:
            found.append(flow)
    return found


def astray(
    flows: Iterable[Flow],
    backends: Mapping[tuple[str, int], Collection[tuple[str, int]]],
    hosts: frozenset[str],
    site: Site,
) -> list[Flow]:
    """UDP flows to a service or node port that do not go to one of its backends.

    ``backends``: (service address or empty, port) -> (address, port). What others translate is left alone: without
    backends, a flow counts as ours if it was sent to the range of services, or to a host and on to a pod.
    """
    services, pods = ipaddress.IPv4Network(site.service_cidr), ipaddress.IPv4Network(site.pod_cidr)
    found: list[Flow] = []
    for flow in flows:
        if flow.protocol != UDP:
            continue
        node = flow.destination in hosts
        there = backends.get(("" if node else flow.destination, flow.port))
        if there is not None:
            gone = (flow.backend, flow.backend_port) not in there
        elif node:
            gone = ipaddress.IPv4Address(flow.backend) in pods
        else:
            gone = _translated(flow) and ipaddress.IPv4Address(flow.destination) in services
        if gone:
            found.append(flow)
    return found


def _translated(flow: Flow) -> bool:
    return (flow.destination, flow.port) != (flow.backend, flow.backend_port)


UDP: Final = "udp"
