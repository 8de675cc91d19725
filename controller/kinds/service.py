"""Services: defaults, validation, columns. Addresses and node ports are claimed by admission, not here."""

from collections.abc import Mapping
from typing import Any, Final

from controller.kinds import rules
from controller.kinds.columns import AGE, NONE, REALIZED, computed, dig, format_labels
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, forbidden, invalid, required

_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_AFFINITY_S: Final = 10800
_AFFINITY_S_MAX: Final = 86400
_POLICIES: Final = ("Cluster", "Local")
_EXTERNAL: Final = ("NodePort", "LoadBalancer")


def default_service(service: Object) -> None:
    """Upstream's defaults; families are IPv4 single-stack, the one family of the pod network."""
    spec = service.setdefault("spec", {})
    spec["type"] = spec.get("type") or "ClusterIP"
    spec["sessionAffinity"] = spec.get("sessionAffinity") or "None"
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        client.setdefault("timeoutSeconds", _AFFINITY_S)
    for port in spec.get("ports") or []:
        port["protocol"] = port.get("protocol") or "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    external = spec["type"] in _EXTERNAL
    if (external or spec.get("externalIPs")) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if spec["type"] == "ExternalName":
        return
    spec["internalTrafficPolicy"] = spec.get("internalTrafficPolicy") or "Cluster"
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")


def _prepare_create(service: Object) -> None:
    service["status"] = {"loadBalancer": {}}


def _prepare_update(service: Object, old: Object) -> None:
    """Keep what the allocators chose when the writer leaves it out, drop what its type no longer has."""
    spec, before = service.setdefault("spec", {}), old.get("spec") or {}
    _drop_what_its_type_lacks(spec, before)
    if spec.get("type") == "ExternalName":
        return
    if before.get("type") != "ExternalName" and not spec.get("clusterIP"):
        spec["clusterIP"] = before.get("clusterIP", "")
        spec.pop("clusterIPs", None)
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    if spec.get("type") in _EXTERNAL:
        _keep_node_ports(spec, before)


def _drop_what_its_type_lacks(spec: Object, before: Object) -> None:
    """A writer that changes the type leaves the rest as it was read; what it did change is judged by validation."""
    kind, was = spec.get("type"), before.get("type")
    gone: list[str] = []
    if kind == "ExternalName" != was:
        gone += ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]
    if was == "ExternalName" != kind:
        gone.append("externalName")
    if was == "LoadBalancer" != kind:
        gone += ["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"]
    if was in _EXTERNAL and kind not in _EXTERNAL:
        numbers = {port.get("nodePort") for port in before.get("ports") or []}
        for port in spec.get("ports") or []:
            if port.get("nodePort") in numbers:
                port.pop("nodePort", None)
        if not spec.get("externalIPs"):
            gone.append("externalTrafficPolicy")
    for key in gone:
        if spec.get(key) == before.get(key):
            spec.pop(key, None)


def _keep_node_ports(spec: Object, before: Object) -> None:
    old_ports = {(p.get("protocol"), p.get("port")): p.get("nodePort") for p in before.get("ports") or []}
    for port in spec.get("ports") or []:
        kept = old_ports.get((port.get("protocol"), port.get("port")))
        if not port.get("nodePort") and kept:
            port["nodePort"] = kept


def _validate(service: Object) -> Errors:
    spec = service.get("spec") or {}
    kind, cluster_ip = spec.get("type"), spec.get("clusterIP")
    errors = rules.one_of("spec.type", kind, _TYPES)
    if not spec.get("ports") and cluster_ip != "None" and kind != "ExternalName":
        errors.append(required("spec.ports"))
    errors += _ports(spec)
    errors += rules.labels("spec.selector", spec.get("selector"))
    if kind == "LoadBalancer" and cluster_ip == "None":
        errors.append(invalid("spec.clusterIPs[0]", cluster_ip, "may not be set to 'None' for LoadBalancer services"))
    if kind == "NodePort" and cluster_ip == "None":
        errors.append(invalid("spec.clusterIPs[0]", cluster_ip, "may not be set to 'None' for NodePort services"))
    if kind == "ExternalName":
        if cluster_ip:
            errors.append(forbidden("spec.clusterIPs", "may not be set for ExternalName services"))
        name = (spec.get("externalName") or "").rstrip(".")
        errors += rules.name("spec.externalName", name, rules.subdomain_problems)
    elif cluster_ip and cluster_ip != "None":
        errors += rules.address("spec.clusterIPs[0]", cluster_ip)
    errors += rules.one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
    seconds = dig(spec, "sessionAffinityConfig.clientIP.timeoutSeconds")
    if seconds is not None and not 0 < seconds <= _AFFINITY_S_MAX:
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        errors.append(invalid(path, seconds, f"must be greater than 0 and less than or equal to {_AFFINITY_S_MAX}"))
    for index, address in enumerate(spec.get("externalIPs") or []):
        errors += rules.address(f"spec.externalIPs[{index}]", address)
    for key in ("internalTrafficPolicy", "externalTrafficPolicy"):
        errors += rules.one_of(f"spec.{key}", spec.get(key), _POLICIES, need=False)
    if spec.get("externalTrafficPolicy") and kind not in _EXTERNAL and not spec.get("externalIPs"):
        detail = "may only be set for externally-accessible services"
        errors.append(invalid("spec.externalTrafficPolicy", spec["externalTrafficPolicy"], detail))
    return errors


def _ports(spec: Mapping[str, Any]) -> Errors:
    ports, kind = spec.get("ports") or [], spec.get("type")
    errors: Errors = []
    names: set[str] = set()
    pairs: set[tuple[Any, Any]] = set()
    node_ports: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        here, name = f"spec.ports[{index}]", port.get("name") or ""
        if not name and len(ports) > 1:
            errors.append(required(f"{here}.name"))
        elif name:
            errors += rules.name(f"{here}.name", name, rules.label_problems)
            if name in names:
                errors.append(rules.duplicate(f"{here}.name", name))
        names.add(name)
        errors += rules.port_number(f"{here}.port", port.get("port", 0))
        errors += rules.one_of(f"{here}.protocol", port.get("protocol"), _PROTOCOLS)
        errors += rules.port_number_or_name(f"{here}.targetPort", port.get("targetPort", 0))
        if port.get("nodePort") and kind not in _EXTERNAL:
            errors.append(forbidden(f"{here}.nodePort", f"may not be used when `type` is '{kind}'"))
        pair = (port.get("protocol"), port.get("port"))
        if pair in pairs:
            errors.append(rules.duplicate(here, {"port": pair[1], "protocol": pair[0]}))
        pairs.add(pair)
        outer = (port.get("protocol"), port.get("nodePort"))
        if port.get("nodePort") and outer in node_ports:
            errors.append(rules.duplicate(f"{here}.nodePort", port["nodePort"]))
        node_ports.add(outer)
    return errors


def _validate_update(service: Object, old: Object) -> Errors:
    spec, before = service.get("spec") or {}, old.get("spec") or {}
    if "ExternalName" in (spec.get("type"), before.get("type")):
        return []
    if before.get("clusterIP") and spec.get("clusterIP") != before["clusterIP"]:
        detail = "may not change once set"
        return [invalid("spec.clusterIPs[0]", spec.get("clusterIPs") or [spec.get("clusterIP", "")], detail)]
    return []


def _external(service: Object) -> str:
    spec = service.get("spec") or {}
    given = ",".join(spec.get("externalIPs") or [])
    match spec.get("type"):
        case "ExternalName":
            return str(spec.get("externalName", NONE))
        case "LoadBalancer":
            points = dig(service, "status.loadBalancer.ingress", [])
            found = ",".join(str(point.get("ip") or point.get("hostname")) for point in points)
            return ",".join(part for part in (found, given) if part) or "<pending>"
        case _:
            return given or NONE


def _ports_cell(service: Object) -> str:
    def one(port: Mapping[str, Any]) -> str:
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        return f"{port.get('port')}{node}/{port.get('protocol')}"

    return ",".join(one(port) for port in dig(service, "spec.ports", [])) or NONE


SERVICE: Final = Kind(
    group="",
    version="v1",
    kind="Service",
    plural="services",
    schema="io.k8s.api.core.v1.Service",
    singular="service",
    short_names=("svc",),
    categories=("all",),
    subresources=("status", "proxy"),
    columns=(
        computed("Type", lambda obj: dig(obj, "spec.type", "")),
        computed("Cluster-IP", lambda obj: dig(obj, "spec.clusterIP") or NONE),
        computed("External-IP", _external),
        computed("Port(s)", _ports_cell),
        AGE,
        computed("Selector", lambda obj: format_labels(dig(obj, "spec.selector")), priority=1),
        REALIZED,
    ),
    generation_fields=("spec",),
    selectable_fields={
        "spec.clusterIP": lambda obj: str(dig(obj, "spec.clusterIP", "")),
        "spec.type": lambda obj: str(dig(obj, "spec.type", "")),
    },
    default=default_service,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=_validate,
    validate_update=_validate_update,
)

KINDS: Final = (SERVICE,)
