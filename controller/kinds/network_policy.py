"""NetworkPolicies: defaults, validation, columns. Ours has a status: where the policy is in force."""

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from controller.kinds import rules
from controller.kinds.columns import AGE, REALIZED, computed, dig, format_selector
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, forbidden, invalid, required

_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")


def _default(policy: Object) -> None:
    spec = policy.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction) or []:
            for port in rule.get("ports") or []:
                port.setdefault("protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _reset_status(policy: Object) -> None:
    policy.pop("status", None)


def _validate(policy: Object) -> Errors:
    spec = policy.get("spec") or {}
    errors = rules.label_selector("spec.podSelector", spec.get("podSelector"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or []):
            here = f"spec.{direction}[{index}]"
            for position, port in enumerate(rule.get("ports") or []):
                errors += _port(port, f"{here}.ports[{position}]")
            for position, peer in enumerate(rule.get(peers) or []):
                errors += _peer(peer, f"{here}.{peers}[{position}]")
    types = spec.get("policyTypes") or []
    if len(types) > 2:
        errors.append(invalid("spec.policyTypes", types, "may not specify more than two policyTypes"))
    for index, kind in enumerate(types):
        errors += rules.one_of(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress"))
    return errors


def _port(port: Mapping[str, Any], path: str) -> Errors:
    errors = rules.one_of(f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
    number, end = port.get("port"), port.get("endPort")
    if number is not None:
        errors += rules.port_number_or_name(f"{path}.port", number)
    if end is None:
        return errors
    if number is None:
        errors.append(required(f"{path}.port", "must be specified if `endPort` is set"))
    elif isinstance(number, str):
        errors.append(invalid(f"{path}.endPort", end, "may not be specified when `port` is non-numeric"))
    elif end < number:
        errors.append(invalid(f"{path}.endPort", end, "must be greater than or equal to `port`"))
    return errors + ([] if 1 <= end <= 65535 else [invalid(f"{path}.endPort", end, rules.PORT_RANGE)])


def _peer(peer: Mapping[str, Any], path: str) -> Errors:
    selectors = [key for key in ("podSelector", "namespaceSelector") if peer.get(key) is not None]
    block = peer.get("ipBlock")
    errors: Errors = []
    for key in selectors:
        errors += rules.label_selector(f"{path}.{key}", peer[key])
    if block is not None:
        errors += _block(block, f"{path}.ipBlock")
        if selectors:
            errors.append(forbidden(path, "may not specify both ipBlock and another peer"))
    elif not selectors:
        errors.append(required(path, "must specify a peer"))
    return errors


def _block(block: Mapping[str, Any], path: str) -> Errors:
    cidr = block.get("cidr") or ""
    if not cidr:
        return [required(f"{path}.cidr")]
    errors = rules.cidr(f"{path}.cidr", cidr)
    if errors:
        return errors
    outer = ipaddress.ip_network(cidr, strict=False)
    for index, text in enumerate(block.get("except") or []):
        here = f"{path}.except[{index}]"
        problems = rules.cidr(here, text)
        errors += problems
        if problems:
            continue
        inner = ipaddress.ip_network(text, strict=False)
        inside = inner.version == outer.version and inner.prefixlen > outer.prefixlen and inner.subnet_of(outer)  # type: ignore[arg-type]
        if not inside:
            errors.append(invalid(here, text, "must be a strict subset of `cidr`"))
    return errors


NETWORK_POLICY: Final = Kind(
    group="networking.k8s.io",
    version="v1",
    kind="NetworkPolicy",
    plural="networkpolicies",
    schema="io.k8s.api.networking.v1.NetworkPolicy",
    singular="networkpolicy",
    short_names=("netpol",),
    subresources=("status",),
    columns=(
        computed("Pod-Selector", lambda obj: format_selector(dig(obj, "spec.podSelector", {}))),
        AGE,
        REALIZED,
    ),
    default=_default,
    prepare_create=_reset_status,
    validate=_validate,
)

KINDS: Final = (NETWORK_POLICY,)
