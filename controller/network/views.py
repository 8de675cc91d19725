"""What the network planner keeps of each object: small, frozen, comparable. Pure.

Two equal views have the same effect on the network, so a status write that changes none of these fields causes no
work. ``view_of`` never raises for an object that the API accepted; it leaves out what is not there yet.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from common.messages import HostPort
from common.selectors import LabelSelector, from_label_selector
from controller.kinds.kind import Object, ResourceKey

NAMESPACES: Final = ResourceKey("", "namespaces")
NODES: Final = ResourceKey("", "nodes")
PODS: Final = ResourceKey("", "pods")
SERVICES: Final = ResourceKey("", "services")
ENDPOINT_SLICES: Final = ResourceKey("discovery.k8s.io", "endpointslices")
POLICIES: Final = ResourceKey("networking.k8s.io", "networkpolicies")
PORTS: Final = ResourceKey("network.sphere.io", "ports")
ADDRESS_BLOCKS: Final = ResourceKey("network.sphere.io", "addressblocks")
SEGMENTS: Final = ResourceKey("network.sphere.io", "segments")

BARRIER_ANNOTATION: Final = "network.sphere.io/realization"
"""On a namespace: ``strict`` keeps a pod waiting for its peers as long as it takes, ``available`` goes on in time."""
SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NamespaceView:
    name: str
    labels: Labels
    strict: bool


@dataclass(frozen=True, slots=True)
class NodeView:
    name: str
    underlay: str
    lost: bool
    """The node's lease expired: its Ready condition is Unknown."""


@dataclass(frozen=True, slots=True)
class NamedPort:
    name: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class PodView:
    namespace: str
    name: str
    uid: str
    host: str
    labels: Labels
    named_ports: tuple[NamedPort, ...]
    host_network: bool
    finished: bool
    """Phase Succeeded or Failed: its address may no longer be its own."""
    deleting: bool
    host_ports: tuple[HostPort, ...] = ()


@dataclass(frozen=True, slots=True)
class PortView:
    namespace: str
    name: str
    pod: str
    pod_uid: str
    host: str
    address: str
    mac: str
    vni: int
    quarantined: bool


@dataclass(frozen=True, slots=True)
class BlockView:
    name: str
    cidr: str
    segment: str
    host: str


@dataclass(frozen=True, slots=True)
class SegmentView:
    name: str
    vni: int


@dataclass(frozen=True, slots=True)
class ServicePortView:
    name: str
    protocol: str
    port: int
    node_port: int


@dataclass(frozen=True, slots=True)
class ServiceView:
    namespace: str
    name: str
    type: str
    cluster_ip: str
    """``None`` (the word) for headless services, empty for ExternalName."""
    external_name: str
    ports: tuple[ServicePortView, ...]
    publish_not_ready: bool
    affinity_s: int
    internal_local: bool
    external_local: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    addresses: tuple[str, ...]
    host: str
    hostname: str
    ready: bool
    serving: bool
    terminating: bool


@dataclass(frozen=True, slots=True)
class SliceView:
    namespace: str
    name: str
    service: str
    ports: tuple[NamedPort, ...]
    endpoints: tuple[Endpoint, ...]

    @property
    def addresses(self) -> frozenset[str]:
        return frozenset(address for endpoint in self.endpoints for address in endpoint.addresses)


@dataclass(frozen=True, slots=True)
class PeerView:
    """One entry of ``from``/``to``. Exactly one of ``cidr`` and the selectors is in use."""

    pods: LabelSelector | None = None
    namespaces: LabelSelector | None = None
    cidr: str = ""
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyPortView:
    """``port`` is a number, a name, or None for all of ``protocol``."""

    protocol: str
    port: int | str | None
    end_port: int = 0


@dataclass(frozen=True, slots=True)
class RuleView:
    """``peers``/``ports`` None: everyone/everything (absent and empty lists mean the same in this API)."""

    peers: tuple[PeerView, ...] | None
    ports: tuple[PolicyPortView, ...] | None


@dataclass(frozen=True, slots=True)
class PolicyView:
    """``ingress``/``egress`` None: the policy does not isolate in that direction."""

    namespace: str
    name: str
    uid: str
    selector: LabelSelector
    ingress: tuple[RuleView, ...] | None
    egress: tuple[RuleView, ...] | None


View = NamespaceView | NodeView | PodView | PortView | BlockView | SegmentView | ServiceView | SliceView | PolicyView


def view_of(resource: ResourceKey, obj: Object) -> View:
    """The view of ``obj``. ``resource`` is one of ``WATCHED``."""
    return _BUILDERS[resource](obj)


def _labels(labels: Mapping[str, str] | None) -> Labels:
    return tuple(sorted((labels or {}).items()))


def _namespace(obj: Object) -> NamespaceView:
    meta = obj["metadata"]
    labels = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}
    answer = (meta.get("annotations") or {}).get(BARRIER_ANNOTATION, "available")
    return NamespaceView(meta["name"], _labels(labels), answer == "strict")


def _node(obj: Object) -> NodeView:
    status = obj.get("status") or {}
    addresses = [each["address"] for each in status.get("addresses") or () if each.get("type") == "InternalIP"]
    ready = [each.get("status") for each in status.get("conditions") or () if each.get("type") == "Ready"]
    return NodeView(obj["metadata"]["name"], addresses[0] if addresses else "", ready == ["Unknown"])


def _pod(obj: Object) -> PodView:
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    restartable = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    ports = [
        port for container in [*(spec.get("containers") or ()), *restartable] for port in container.get("ports") or ()
    ]
    named = [
        NamedPort(port["name"], port.get("protocol", "TCP").lower(), port["containerPort"])
        for port in ports
        if port.get("name")
    ]
    on_host = [
        HostPort(
            protocol=port.get("protocol", "TCP").lower(),
            host_port=port["hostPort"],
            pod_port=port["containerPort"],
            host_address=port.get("hostIP") or "",
        )
        for port in ports
        if port.get("hostPort") and ":" not in port.get("hostIP", "")  # no IPv6 yet
    ]
    return PodView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta.get("uid", ""),
        host=spec.get("nodeName", ""),
        labels=_labels(meta.get("labels")),
        named_ports=tuple(named),
        host_network=bool(spec.get("hostNetwork")),
        finished=status.get("phase") in ("Succeeded", "Failed"),
        deleting="deletionTimestamp" in meta,
        host_ports=tuple(on_host),
    )


def _port(obj: Object) -> PortView:
    meta, spec = obj["metadata"], obj.get("spec") or {}
    return PortView(
        namespace=meta["namespace"],
        name=meta["name"],
        pod=spec.get("podName", ""),
        pod_uid=spec.get("podUID", ""),
        host=spec.get("host", ""),
        address=spec.get("address", ""),
        mac=spec.get("mac", ""),
        vni=spec.get("vni", 0),
        quarantined=(obj.get("status") or {}).get("phase") == "Quarantined",
    )


def _block(obj: Object) -> BlockView:
    spec = obj.get("spec") or {}
    return BlockView(obj["metadata"]["name"], spec.get("cidr", ""), spec.get("segment", ""), spec.get("host", ""))


def _segment(obj: Object) -> SegmentView:
    return SegmentView(obj["metadata"]["name"], (obj.get("spec") or {}).get("vni", 0))


def _service(obj: Object) -> ServiceView:
    meta, spec = obj["metadata"], obj.get("spec") or {}
    kind = spec.get("type", "ClusterIP")
    affinity = 0
    if spec.get("sessionAffinity") == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity = config.get("timeoutSeconds") or 10800
    ports = tuple(
        ServicePortView(
            each.get("name", ""), each.get("protocol", "TCP").lower(), each["port"], each.get("nodePort") or 0
        )
        for each in spec.get("ports") or ()
    )
    return ServiceView(
        namespace=meta["namespace"],
        name=meta["name"],
        type=kind,
        cluster_ip="" if kind == "ExternalName" else spec.get("clusterIP", ""),
        external_name=spec.get("externalName", "") if kind == "ExternalName" else "",
        ports=ports,
        publish_not_ready=bool(spec.get("publishNotReadyAddresses")),
        affinity_s=affinity,
        internal_local=spec.get("internalTrafficPolicy") == "Local",
        external_local=spec.get("externalTrafficPolicy") == "Local",
    )


def _slice(obj: Object) -> SliceView:
    meta = obj["metadata"]
    endpoints = []
    for each in obj.get("endpoints") or ():
        conditions = each.get("conditions") or {}
        ready = conditions.get("ready") is not False
        serving = conditions.get("serving")
        endpoints.append(
            Endpoint(
                addresses=tuple(each.get("addresses") or ()),
                host=each.get("nodeName", ""),
                hostname=each.get("hostname", ""),
                ready=ready,
                serving=ready if serving is None else bool(serving),
                terminating=bool(conditions.get("terminating")),
            )
        )
    ports = tuple(
        NamedPort(each.get("name") or "", (each.get("protocol") or "TCP").lower(), each.get("port") or 0)
        for each in obj.get("ports") or ()
    )
    service = (meta.get("labels") or {}).get(SERVICE_NAME_LABEL, "")
    ipv4 = obj.get("addressType", "IPv4") == "IPv4"
    return SliceView(meta["namespace"], meta["name"], service if ipv4 else "", ports, tuple(endpoints))


def _peer(peer: Mapping[str, Any]) -> PeerView:
    block = peer.get("ipBlock")
    if block:
        return PeerView(cidr=block["cidr"], excluded=tuple(sorted(block.get("except") or ())))
    pods, namespaces = peer.get("podSelector"), peer.get("namespaceSelector")
    return PeerView(
        pods=None if pods is None else from_label_selector(pods),
        namespaces=None if namespaces is None else from_label_selector(namespaces),
    )


def _rules(rules: list[Mapping[str, Any]] | None, peers_key: str) -> tuple[RuleView, ...]:
    found = []
    for rule in rules or ():
        ports = tuple(
            PolicyPortView(each.get("protocol", "TCP").lower(), each.get("port"), each.get("endPort") or 0)
            for each in rule.get("ports") or ()
        )
        peers = tuple(_peer(each) for each in rule.get(peers_key) or ())
        found.append(RuleView(peers or None, ports or None))
    return tuple(found)


def _policy(obj: Object) -> PolicyView:
    meta, spec = obj["metadata"], obj.get("spec") or {}
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    return PolicyView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta.get("uid", ""),
        selector=from_label_selector(spec.get("podSelector") or {}),
        ingress=_rules(spec.get("ingress"), "from") if "Ingress" in types else None,
        egress=_rules(spec.get("egress"), "to") if "Egress" in types else None,
    )


_BUILDERS: Final[Mapping[ResourceKey, Callable[[Object], View]]] = {
    NAMESPACES: _namespace,
    NODES: _node,
    PODS: _pod,
    PORTS: _port,
    ADDRESS_BLOCKS: _block,
    SEGMENTS: _segment,
    SERVICES: _service,
    ENDPOINT_SLICES: _slice,
    POLICIES: _policy,
}

WATCHED: Final[tuple[ResourceKey, ...]] = tuple(_BUILDERS)
