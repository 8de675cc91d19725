"""What NetworkPolicies mean, slowly and plainly, from their text in the API. Nothing of the product is used."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Party:
    """Someone who sends or receives. ``namespace`` is empty for what is no pod."""

    name: str
    address: str
    namespace: str = ""
    labels: Object = field(default_factory=dict)
    namespace_labels: Object = field(default_factory=dict)
    ports: Object = field(default_factory=dict)
    """Name of a container port -> (protocol, number)."""


@dataclass(frozen=True)
class Rule:
    """A NetworkPolicy: its namespace and its spec."""

    namespace: str
    spec: Object


def selects(selector: Object, labels: Object) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for each in selector.get("matchExpressions", []):
        value = labels.get(each["key"])
        match each["operator"]:
            case "In":
                good = value in each["values"]
            case "NotIn":
                good = value not in each["values"]
            case "Exists":
                good = value is not None
            case _:
                good = value is None
        if not good:
            return False
    return True


def allowed(source: Party, target: Party, protocol: str, port: int, rules: Sequence[Rule]) -> bool:
    """Whether ``source`` may open ``protocol``/``port`` of ``target``."""
    return _side(source, target, "Egress", source, target, protocol, port, rules) and _side(
        target, source, "Ingress", source, target, protocol, port, rules
    )


def _side(
    own: Party, peer: Party, way: str, source: Party, target: Party, protocol: str, port: int, rules: Sequence[Rule]
) -> bool:
    isolated = False
    for rule in rules:
        spec = rule.spec
        ways = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
        if not own.namespace or rule.namespace != own.namespace or way not in ways:
            continue
        if not selects(spec["podSelector"], own.labels):
            continue
        isolated = True
        for each in spec.get(way.lower(), []):
            peers = each.get("from" if way == "Ingress" else "to") or []
            ports = each.get("ports") or []
            if (not peers or any(_is(one, peer, rule.namespace) for one in peers)) and (
                not ports or any(_port(one, target, protocol, port) for one in ports)
            ):
                return True
    return not isolated


def _is(selector: Object, peer: Party, namespace: str) -> bool:
    if "ipBlock" in selector:
        address, block = ipaddress.ip_address(peer.address), selector["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and all(address not in ipaddress.ip_network(one) for one in block.get("except", []))
    if not peer.namespace:
        return False
    if "namespaceSelector" in selector:
        if not selects(selector["namespaceSelector"], peer.namespace_labels):
            return False
    elif peer.namespace != namespace:
        return False
    return selects(selector.get("podSelector", {}), peer.labels)


def _port(wanted: Object, target: Party, protocol: str, port: int) -> bool:
    if wanted.get("protocol", "TCP").lower() != protocol:
        return False
    number = wanted.get("port")
    if number is None:
        return True
    if isinstance(number, str):
        return bool(target.ports.get(number) == (protocol, port))
    last: Any = wanted.get("endPort", number)
    return bool(number <= port <= last)
