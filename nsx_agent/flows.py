"""Which running flows a change forbids. Pure: the same decisions as the rendered rules, taken over plain data."""

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from common.errors import Terminal
from common.messages import PolicyItem, PolicyPort, PolicyRule
from nsx_agent.kernel.conntrack import Flow
from nsx_agent.render.firewall import PAIR_PORT, Direction, NamespaceFirewall, networks


class Verdicts:
    """Answers for one namespace's pods on this host."""

    def __init__(self, firewall: NamespaceFirewall) -> None:
        self._firewall = firewall
        self._members: dict[str, Callable[[str], bool]] = {}

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
        return item is None or pod in item.members

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


def orphaned(flows: Iterable[Flow], removed: frozenset[tuple[str, str, int]], fresh: frozenset[str]) -> list[Flow]:
    """UDP flows that would go on to an endpoint that left, or past a service that has endpoints only now.

    ``removed``: (address flows were sent to or empty for a node port, backend address, backend port).
    ``fresh``: service addresses whose balancer entries are new.
    """
    found: list[Flow] = []
    for flow in flows:
        if flow.protocol != UDP:
            continue
        translated = flow.backend != flow.destination or flow.backend_port != flow.port
        gone = {(flow.destination, flow.backend, flow.backend_port), ("", flow.backend, flow.backend_port)} & removed
        if (translated and gone) or (not translated and flow.destination in fresh):
            found.append(flow)
    return found


UDP: Final = "udp"
