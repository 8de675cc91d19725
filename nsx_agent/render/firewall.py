"""NetworkPolicy of one namespace on this host: verdict maps by pod address, a chain per policy, shared peer sets.

A local pod that policies isolate leads, per direction, to a **group** chain: one jump per policy that selects it,
then a drop. Pods under the same policies share the group. Allowed egress goes on to ``arrive``, where the ingress
side of a local destination is judged; allowed ingress is accepted.

Anything missing closes: a policy whose ``selected`` set is unknown isolates every local pod of the namespace, a rule
with an unknown peer set matches nobody, and a namespace that is not complete yet drops all traffic of its pods.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from common.errors import Terminal
from common.messages import AddressSetItem, Failure, PolicyItem, PolicyPort, PolicyRule
from nsx_agent.model import ChainKey, ChainSpec, ElementKey, Key, SetKey, SetSpec, Value
from nsx_agent.render import addresses
from nsx_agent.render.addresses import short_hash

Direction = Literal["ingress", "egress"]
DIRECTIONS: Final[tuple[Direction, Direction]] = ("ingress", "egress")
PLAIN: Final = SetSpec("set", "ipv4_addr")
RANGES: Final = SetSpec("set", "ipv4_addr", "flags interval")
PAIRS: Final = SetSpec("set", "ipv4_addr . inet_service")
PAIR_PORT: Final = -1


@dataclass(frozen=True, slots=True)
class NamespaceFirewall:
    """What is known of one namespace. ``complete`` is False until its scope was in sync once."""

    namespace: str
    complete: bool
    sets: Mapping[str, AddressSetItem]
    policies: Mapping[str, PolicyItem]
    """By item key."""
    local: tuple[str, ...]
    """Addresses of the namespace's pods on this host, sorted."""


@dataclass(slots=True)
class _Output:
    entries: dict[Key, Value] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _PeerSet:
    """A rendered set: nft name, spec, elements, and the same addresses for the evaluator."""

    name: str
    spec: SetSpec
    elements: tuple[str, ...]


def render(firewall: NamespaceFirewall) -> tuple[dict[Key, Value], tuple[Failure, ...]]:
    """Entries of a namespace and the items that could not be rendered."""
    output = _Output()
    if not firewall.complete:
        for address in firewall.local:
            for direction in DIRECTIONS:
                output.entries[ElementKey(direction, address)] = "drop"
        return output.entries, ()
    peers = _peer_sets(firewall, output)
    groups: dict[Direction, dict[str, list[str]]] = {"ingress": {}, "egress": {}}
    for key in sorted(firewall.policies):
        policy = firewall.policies[key]
        selected = _selected(firewall, key, policy, output)
        if not selected:
            continue
        for direction in DIRECTIONS:
            rules = policy.ingress if direction == "ingress" else policy.egress
            if rules is None:
                continue
            chain = _policy_chain(key, policy, direction, rules, peers, output)
            for address in selected:
                groups[direction].setdefault(address, []).append(chain)
    for direction in DIRECTIONS:
        _groups(direction, groups[direction], output)
    return output.entries, tuple(output.failures)


def _peer_sets(firewall: NamespaceFirewall, output: _Output) -> dict[str, _PeerSet]:
    peers: dict[str, _PeerSet] = {}
    for identifier, item in firewall.sets.items():
        try:
            peers[identifier] = _peer_set(firewall.namespace, item)
        except Terminal as err:
            output.failures.append(Failure(key=f"set/{identifier}", reason=str(err)))
    return peers


def networks(item: AddressSetItem) -> list[str]:
    """What a set stands for, as CIDRs (a single address without ``/32``). Raises ``Terminal``."""
    if not item.excluded and all("/" not in member for member in item.members):
        return [addresses.address(member) for member in item.members]
    left = addresses.subtract(map(addresses.cidr, item.members), map(addresses.cidr, item.excluded))
    return [str(network.network_address) if network.prefixlen == 32 else str(network) for network in left]


def _peer_set(namespace: str, item: AddressSetItem) -> _PeerSet:
    elements = tuple(networks(item))
    if "0.0.0.0/0" in elements:  # older nft refuses the whole range as one element
        elements = ("0.0.0.0/1", "128.0.0.0/1")
    ranges = bool(item.excluded) or any("/" in member for member in item.members)
    return _PeerSet(f"{'i' if ranges else 's'}_{short_hash(namespace, item.id)}", RANGES if ranges else PLAIN, elements)


def _selected(firewall: NamespaceFirewall, key: str, policy: PolicyItem, output: _Output) -> tuple[str, ...]:
    item = firewall.sets.get(policy.selected)
    if item is None:
        reason = f"the set of pods it selects ({policy.selected}) is unknown; all pods of the namespace are isolated"
        output.failures.append(Failure(key=key, reason=reason))
        return firewall.local
    members = frozenset(item.members)
    return tuple(address for address in firewall.local if address in members)


def _policy_chain(
    key: str,
    policy: PolicyItem,
    direction: Direction,
    rules: Sequence[PolicyRule],
    peers: Mapping[str, _PeerSet],
    output: _Output,
) -> str:
    name = f"p{direction[0]}_{short_hash(policy.namespace, policy.name, policy.uid)}"
    if ChainKey(name) in output.entries:
        return name
    lines: list[str] = []
    for index, rule in enumerate(rules):
        try:
            ports = _ports(f"{name}/{index}", rule.ports, output)
            sources = _peers(rule, direction, peers, output)
        except Terminal as err:
            output.failures.append(Failure(key=key, reason=f"{direction} rule {index}: {err}"))
            continue
        verdict = "accept" if direction == "ingress" else "goto arrive"
        lines += [" ".join(filter(None, (source, port, verdict))) for source in sources for port in ports]
    output.entries[ChainKey(name)] = ChainSpec(tuple(lines))
    return name


def _peers(rule: PolicyRule, direction: Direction, peers: Mapping[str, _PeerSet], output: _Output) -> list[str]:
    if rule.any_peer:
        return [""]
    side = "saddr" if direction == "ingress" else "daddr"
    found: list[str] = []
    unknown = [identifier for identifier in rule.sets if identifier not in peers]
    for identifier in rule.sets:
        peer = peers.get(identifier)
        if peer is None:
            continue
        if SetKey(peer.name) not in output.entries:  # many rules may share a large one
            output.entries[SetKey(peer.name)] = peer.spec
            output.entries |= dict.fromkeys((ElementKey(peer.name, element) for element in peer.elements), "")
        found.append(f"ip {side} @{peer.name}")
    if unknown and not found:
        raise Terminal(f"peer sets are unknown: {', '.join(unknown)}; the rule matches nobody")
    return found


def _ports(owner: str, ports: Iterable[PolicyPort], output: _Output) -> list[str]:
    ports = tuple(ports)
    if not ports:
        return [""]
    whole: set[str] = set()
    numbers: dict[str, set[str]] = {}
    pairs: dict[str, set[str]] = {}
    for one in ports:
        proto = addresses.protocol(one.protocol)
        if one.port == PAIR_PORT:
            texts = {f"{addresses.address(address)} . {addresses.port(port)}" for address, port in one.pairs}
            pairs.setdefault(proto, set()).update(texts)
        elif one.port == 0:
            whole.add(proto)
        else:
            first, last = addresses.port(one.port), addresses.port(one.end_port or one.port)
            if last < first:
                raise Terminal(f"endPort {last} is below port {first}")
            numbers.setdefault(proto, set()).add(str(first) if first == last else f"{first}-{last}")
    lines = [f"meta l4proto {proto}" for proto in sorted(whole)]
    for proto in sorted(numbers):
        # One rule per range: overlapping ranges cannot share an anonymous set.
        single = sorted((text for text in numbers[proto] if "-" not in text), key=int)
        if single:
            lines.append(f"{proto} dport {{ {', '.join(single)} }}")
        lines += [f"{proto} dport {text}" for text in sorted(numbers[proto]) if "-" in text]
    for proto in sorted(pairs):
        name = f"q_{short_hash(owner, proto)}"
        output.entries[SetKey(name)] = PAIRS
        for text in pairs[proto]:
            output.entries[ElementKey(name, text)] = ""
        lines.append(f"ip daddr . {proto} dport @{name}")
    return lines


def _groups(direction: Direction, chains_of: Mapping[str, list[str]], output: _Output) -> None:
    for address, chains in chains_of.items():
        name = f"g{direction[0]}_{short_hash(*chains)}"
        rules = tuple(f"jump {chain}" for chain in chains)
        output.entries[ChainKey(name)] = ChainSpec((*rules, f"goto deny_{direction}"))
        output.entries[ElementKey(direction, address)] = f"goto {name}"
