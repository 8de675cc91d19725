"""NetworkPolicy to wire items, in full (spec: networking.k8s.io/v1). Pure.

A policy refers to peers by *sets*. ``compile_policy`` names the sets (``SetSpec``) that a policy needs; the planner
keeps their members current; ``policy_item`` puts both together. Only named ports need members to build the item.

Law: a set's id depends on nothing but what it selects, so equal selectors share one set.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from common.messages import AddressSetItem, PolicyItem, PolicyPort, PolicyRule
from common.selectors import EVERYTHING, LabelSelector
from controller.network.views import Labels, NamedPort, PeerView, PolicyPortView, PolicyView, RuleView


@dataclass(frozen=True, slots=True)
class SetSpec:
    """What a set selects: pods (of ``namespace``, or of namespaces that ``namespaces`` matches), or a CIDR."""

    pods: LabelSelector = EVERYTHING
    namespace: str = ""
    namespaces: LabelSelector | None = None
    cidr: str = ""
    excluded: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """16 hexadecimal digits, the same on every controller."""
        text = "\0".join(
            (self.cidr, *self.excluded)
            if self.cidr
            else ("pods", str(self.pods), self.namespace if self.namespaces is None else f"*{self.namespaces}")
        )
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def matches(self, namespace: str, namespace_labels: Labels | None, labels: Labels) -> bool:
        """Whether a pod belongs. ``namespace_labels`` None: the namespace object is unknown, selectors fail."""
        return self.matches_namespace(namespace, namespace_labels) and self.pods.matches(dict(labels))

    def matches_namespace(self, namespace: str, labels: Labels | None) -> bool:
        if self.cidr:
            return False
        if self.namespaces is None:
            return namespace == self.namespace
        return labels is not None and self.namespaces.matches(dict(labels))


EVERY_POD = SetSpec(namespaces=EVERYTHING)


@dataclass(frozen=True, slots=True)
class SetMember:
    """A pod as sets see it."""

    address: str
    named_ports: tuple[NamedPort, ...]


Members = Callable[[SetSpec], Iterable[SetMember]]


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """``published`` are the sets that its item refers to; ``resolved`` those whose members' named ports it needs."""

    view: PolicyView
    selected: SetSpec
    published: frozenset[SetSpec]
    resolved: frozenset[SetSpec]


def compile_policy(view: PolicyView) -> CompiledPolicy:
    """Which sets ``view`` needs."""
    selected = SetSpec(pods=view.selector, namespace=view.namespace)
    published = {selected}
    resolved: set[SetSpec] = set()
    for rules, ingress in ((view.ingress or (), True), (view.egress or (), False)):
        for rule in rules:
            peers = [peer_set(view.namespace, peer) for peer in rule.peers or ()]
            published.update(peers)
            if any(isinstance(port.port, str) for port in rule.ports or ()):
                resolved.update(_destinations(selected, rule, peers, ingress))
    return CompiledPolicy(view, selected, frozenset(published), frozenset(resolved))


def peer_set(namespace: str, peer: PeerView) -> SetSpec:
    """The set that one ``from``/``to`` entry of a policy in ``namespace`` stands for."""
    if peer.cidr:
        return SetSpec(cidr=peer.cidr, excluded=peer.excluded)
    if peer.namespaces is None:
        return SetSpec(pods=peer.pods or EVERYTHING, namespace=namespace)
    return SetSpec(pods=EVERYTHING if peer.pods is None else peer.pods, namespaces=peer.namespaces)


def _destinations(selected: SetSpec, rule: RuleView, peers: Iterable[SetSpec], ingress: bool) -> list[SetSpec]:
    """Sets of pods whose named ports a rule may mean: its own pods for ingress, its peers for egress.

    An ipBlock may cover any pod; the agent asks for peer and port both, so every pod's ports can stand for it.
    """
    if ingress:
        return [selected]
    listed = list(peers)
    return [EVERY_POD] if rule.peers is None or any(spec.cidr for spec in listed) else listed


def policy_item(compiled: CompiledPolicy, members: Members) -> PolicyItem:
    """The wire item. ``members`` answers for the sets in ``compiled.resolved``."""
    view = compiled.view

    def rule_of(rule: RuleView, ingress: bool) -> PolicyRule:
        peers = [peer_set(view.namespace, peer) for peer in rule.peers or ()]
        destinations = _destinations(compiled.selected, rule, peers, ingress)
        return PolicyRule(
            any_peer=rule.peers is None,
            sets=tuple(sorted({spec.id for spec in peers})),
            ports=tuple(_port(port, destinations, members) for port in rule.ports or ()),
        )

    return PolicyItem(
        namespace=view.namespace,
        name=view.name,
        uid=view.uid,
        selected=compiled.selected.id,
        ingress=None if view.ingress is None else tuple(rule_of(rule, True) for rule in view.ingress),
        egress=None if view.egress is None else tuple(rule_of(rule, False) for rule in view.egress),
    )


def _port(port: PolicyPortView, destinations: Iterable[SetSpec], members: Members) -> PolicyPort:
    if port.port is None:
        return PolicyPort(protocol=port.protocol)
    if isinstance(port.port, int):
        return PolicyPort(protocol=port.protocol, port=port.port, end_port=port.end_port)
    pairs = {
        (member.address, named.port)
        for spec in destinations
        for member in members(spec)
        for named in member.named_ports
        if named.name == port.port and named.protocol == port.protocol
    }
    return PolicyPort(protocol=port.protocol, port=-1, pairs=tuple(sorted(pairs)))


def set_item(spec: SetSpec, addresses: Iterable[str]) -> AddressSetItem:
    """The wire item of a set with these pod addresses (none for a CIDR)."""
    if spec.cidr:
        return AddressSetItem(id=spec.id, members=(spec.cidr,), excluded=spec.excluded)
    return AddressSetItem(id=spec.id, members=tuple(sorted(set(addresses))))
