"""Random and hand-made API objects that matter to the network, for unit and property tests."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from controller.kinds.kind import Object, ResourceKey
from controller.network.views import (
    ADDRESS_BLOCKS,
    ENDPOINT_SLICES,
    NAMESPACES,
    NODES,
    PODS,
    POLICIES,
    PORTS,
    SEGMENTS,
    SERVICE_NAME_LABEL,
    SERVICES,
)

NAMES = ("red", "blue", "green")
HOSTS = ("host-1", "host-2", "host-3")
LABEL_KEYS = ("app", "tier")
LABEL_VALUES = ("a", "b")
PORT_NAMES = ("web", "admin")

Event = tuple[ResourceKey, str, str, Object | None]
"""Resource, namespace, name and the new object (None: deleted)."""

labels = st.dictionaries(st.sampled_from(LABEL_KEYS), st.sampled_from(LABEL_VALUES), max_size=2)


@st.composite
def selectors(draw: st.DrawFn) -> dict[str, Any]:
    """A ``metav1.LabelSelector``."""
    selector: dict[str, Any] = {}
    if draw(st.booleans()):
        selector["matchLabels"] = draw(labels)
    expressions = []
    for _ in range(draw(st.integers(0, 1))):
        operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]))
        expression: dict[str, Any] = {"key": draw(st.sampled_from(LABEL_KEYS)), "operator": operator}
        if operator in ("In", "NotIn"):
            expression["values"] = draw(st.lists(st.sampled_from(LABEL_VALUES), min_size=1, max_size=2, unique=True))
        expressions.append(expression)
    if expressions:
        selector["matchExpressions"] = expressions
    return selector


@st.composite
def peers(draw: st.DrawFn) -> dict[str, Any]:
    """A ``NetworkPolicyPeer``."""
    kind = draw(st.sampled_from(["pods", "namespaces", "both", "block"]))
    if kind == "block":
        block: dict[str, Any] = {"cidr": draw(st.sampled_from(["10.64.0.0/24", "10.64.0.0/29", "0.0.0.0/0"]))}
        if draw(st.booleans()):
            block["except"] = [draw(st.sampled_from(["10.64.0.0/30", "10.64.0.4/32"]))]
        return {"ipBlock": block}
    peer: dict[str, Any] = {}
    if kind in ("pods", "both"):
        peer["podSelector"] = draw(selectors())
    if kind in ("namespaces", "both"):
        peer["namespaceSelector"] = draw(selectors())
    return peer


@st.composite
def policy_ports(draw: st.DrawFn) -> dict[str, Any]:
    """A ``NetworkPolicyPort``."""
    port: dict[str, Any] = {}
    if draw(st.booleans()):
        port["protocol"] = draw(st.sampled_from(["TCP", "UDP", "SCTP"]))
    kind = draw(st.sampled_from(["none", "number", "range", "name"]))
    if kind == "name":
        port["port"] = draw(st.sampled_from(PORT_NAMES))
    elif kind != "none":
        port["port"] = draw(st.sampled_from([80, 81, 8080]))
        if kind == "range":
            port["endPort"] = port["port"] + draw(st.integers(0, 2))
    return port


@st.composite
def policies(draw: st.DrawFn, namespace: str = "red", name: str = "p") -> Object:
    """A NetworkPolicy with every optional part sometimes missing and sometimes empty."""
    spec: dict[str, Any] = {"podSelector": draw(selectors())}
    for direction, peers_key in (("ingress", "from"), ("egress", "to")):
        if draw(st.booleans()):
            continue
        rules = []
        for _ in range(draw(st.integers(0, 2))):
            rule: dict[str, Any] = {}
            if draw(st.booleans()):
                rule[peers_key] = draw(st.lists(peers(), max_size=2))
            if draw(st.booleans()):
                rule["ports"] = draw(st.lists(policy_ports(), max_size=2))
            rules.append(rule)
        spec[direction] = rules
    if draw(st.booleans()):
        spec["policyTypes"] = draw(st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]))
    return {"metadata": {"namespace": namespace, "name": name, "uid": f"policy-{namespace}-{name}"}, "spec": spec}


def a_namespace(name: str, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None) -> Object:
    return {"metadata": {"name": name, "labels": labels or {}, "annotations": annotations or {}}}


def a_node(name: str, ready: str = "True") -> Object:
    addresses = [{"type": "InternalIP", "address": f"172.30.0.1{name[-1]}"}]
    status = {"addresses": addresses, "conditions": [{"type": "Ready", "status": ready}]}
    return {"metadata": {"name": name}, "status": status}


def a_pod(
    namespace: str,
    name: str,
    host: str = "host-1",
    labels: dict[str, str] | None = None,
    ports: Sequence[dict[str, Any]] = (),
    **more: Any,
) -> Object:
    meta = {"namespace": namespace, "name": name, "uid": f"uid-{namespace}-{name}", "labels": labels or {}}
    if more.pop("deleting", False):
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    phase = more.pop("phase", "Running")
    spec = {"nodeName": host, "containers": [{"name": "c", "ports": list(ports)}], **more}
    return {"metadata": meta, "spec": spec, "status": {"phase": phase}}


def a_port(namespace: str, pod: str, address: str, host: str = "host-1", phase: str = "Bound") -> Object:
    name = address.replace(".", "-")
    spec = {
        "podName": pod,
        "podUID": f"uid-{namespace}-{pod}",
        "host": host,
        "address": address,
        "mac": "02:73:0a:40:00:01",
        "vni": 4096,
        "segment": namespace,
    }
    return {"metadata": {"namespace": namespace, "name": name}, "spec": spec, "status": {"phase": phase}}


def a_service(namespace: str, name: str, **spec: Any) -> Object:
    full = {"type": "ClusterIP", "clusterIP": "10.96.0.20", "ports": [{"name": "web", "port": 80}], **spec}
    return {"metadata": {"namespace": namespace, "name": name}, "spec": full}


def an_endpoint(address: str, host: str = "host-1", hostname: str = "", **conditions: bool) -> dict[str, Any]:
    endpoint: dict[str, Any] = {"addresses": [address], "nodeName": host, "conditions": conditions}
    if hostname:
        endpoint["hostname"] = hostname
    return endpoint


def a_slice(namespace: str, service: str, endpoints: Sequence[dict[str, Any]], suffix: str = "1") -> Object:
    return {
        "metadata": {"namespace": namespace, "name": f"{service}-{suffix}", "labels": {SERVICE_NAME_LABEL: service}},
        "addressType": "IPv4",
        "ports": [{"name": "web", "protocol": "TCP", "port": 8080}],
        "endpoints": list(endpoints),
    }


def pod_ports() -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.fixed_dictionaries(
        {
            "name": st.sampled_from(PORT_NAMES),
            "containerPort": st.sampled_from([80, 8080]),
            "protocol": st.sampled_from(["TCP", "UDP"]),
        }
    )
    return st.lists(one, max_size=2, unique_by=lambda port: port["name"])


@st.composite
def events(draw: st.DrawFn) -> Event:
    """One change of any object that the planner reads."""
    kind = draw(st.sampled_from(["ns", "node", "pod", "port", "block", "segment", "service", "slice", "policy"]))
    namespace, host = draw(st.sampled_from(NAMES)), draw(st.sampled_from(HOSTS))
    gone = draw(st.integers(0, 3)) == 0
    number = draw(st.integers(0, 3))
    address = f"10.64.{NAMES.index(namespace)}.{number}"
    pod = f"pod-{number}"
    obj: Object
    match kind:
        case "ns":
            strict = {"network.sphere.io/realization": "strict"} if draw(st.booleans()) else {}
            obj = a_namespace(namespace, draw(labels), strict)
            return NAMESPACES, "", namespace, None if gone else obj
        case "node":
            return NODES, "", host, None if gone else a_node(host, draw(st.sampled_from(["True", "Unknown"])))
        case "pod":
            obj = a_pod(
                namespace,
                pod,
                host,
                draw(labels),
                draw(pod_ports()),
                hostNetwork=draw(st.integers(0, 4)) == 0,
                deleting=draw(st.booleans()),
                phase=draw(st.sampled_from(["Pending", "Running", "Failed"])),
            )
            return PODS, namespace, pod, None if gone else obj
        case "port":
            obj = a_port(namespace, pod, address, host, draw(st.sampled_from(["Bound", "Bound", "Quarantined"])))
            return PORTS, namespace, obj["metadata"]["name"], None if gone else obj
        case "block":
            name = f"10-64-{number}-0-28"
            obj = {
                "metadata": {"name": name},
                "spec": {"cidr": f"10.64.{number}.0/28", "segment": namespace, "host": host},
            }
            return ADDRESS_BLOCKS, "", name, None if gone else obj
        case "segment":
            obj = {"metadata": {"name": namespace}, "spec": {"vni": 4096 + number}}
            return SEGMENTS, "", namespace, None if gone else obj
        case "service":
            name = f"svc-{number % 2}"
            cluster_ip = draw(st.sampled_from(["10.96.0.20", "None"]))
            obj = a_service(namespace, name, clusterIP=cluster_ip, publishNotReadyAddresses=draw(st.booleans()))
            return SERVICES, namespace, name, None if gone else obj
        case "slice":
            service = f"svc-{draw(st.integers(0, 1))}"
            conditions = {key: draw(st.booleans()) for key in ("ready", "serving", "terminating")}
            obj = a_slice(
                namespace, service, [an_endpoint(address, host, draw(st.sampled_from(["", pod])), **conditions)]
            )
            obj["metadata"]["name"] = f"slice-{number}"
            return ENDPOINT_SLICES, namespace, obj["metadata"]["name"], None if gone else obj
        case _:
            name = f"p-{number % 2}"
            return POLICIES, namespace, name, None if gone else draw(policies(namespace, name))
