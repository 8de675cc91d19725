"""What the scheduler knows of a pod and of a node: parsed once, compared as integers. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

from common.quantity import Quantity
from common.selectors import LabelSelector, from_label_selector, requirement
from controller.kinds.claims import Use, uses
from controller.kinds.kind import Object

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"


@dataclass(frozen=True, slots=True)
class Taint:
    """``effect`` is ``NoSchedule``, ``PreferNoSchedule`` or ``NoExecute``."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{{{self.key}: {self.value}}}"


@dataclass(frozen=True, slots=True)
class Toleration:
    """Empty ``key`` with ``Exists`` tolerates everything; empty ``effect`` every effect."""

    key: str
    operator: str
    value: str
    effect: str

    def tolerates(self, taint: Taint) -> bool:
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value == taint.value)


class Located(Protocol):
    """What node affinity looks at."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class NodeTerm:
    """One ``nodeSelectorTerm``: labels and name must match. An empty term matches nothing."""

    labels: LabelSelector
    fields: LabelSelector

    def matches(self, node: "Located") -> bool:
        if self.labels.is_empty and self.fields.is_empty:
            return False
        return self.labels.matches(node.labels) and self.fields.matches({"metadata.name": node.name})


@dataclass(frozen=True, slots=True)
class HostPort:
    """``address`` empty means all of the host's addresses."""

    address: str
    protocol: str
    port: int

    def clashes(self, other: "HostPort") -> bool:
        same = (self.protocol, self.port) == (other.protocol, other.port)
        return same and (not self.address or not other.address or self.address == other.address)


@dataclass(frozen=True, slots=True)
class PodTerm:
    """One ``podAffinityTerm``. ``namespaces`` empty and no selector of namespaces: the pod's own."""

    selector: LabelSelector
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None
    topology_key: str


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """One ``topologySpreadConstraint``; ``hard`` is ``DoNotSchedule``."""

    max_skew: int
    topology_key: str
    hard: bool
    selector: LabelSelector
    min_domains: int
    honor_affinity: bool
    honor_taints: bool


@dataclass(frozen=True, slots=True)
class Closeness:
    """What a pod wants of other pods: to be near some, far from some, spread among some."""

    near: tuple[PodTerm, ...] = ()
    far: tuple[PodTerm, ...] = ()
    rather_near: tuple[tuple[int, PodTerm], ...] = ()
    """Weights, negative for those to be rather far from."""
    spread: tuple[SpreadConstraint, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.near or self.far or self.rather_near or self.spread)


NO_WISHES: Final = Closeness()


@dataclass(frozen=True)
class PodNeeds:
    """A pod as the scheduler sees it."""

    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    requests: Mapping[str, int]
    priority: int
    created: str
    owner: str
    selector: Mapping[str, str]
    required: tuple[NodeTerm, ...] | None
    preferred: tuple[tuple[int, NodeTerm], ...]
    tolerations: tuple[Toleration, ...]
    host_ports: tuple[HostPort, ...]
    host_network: bool
    closeness: Closeness
    preempts: bool
    """May push away pods of lower priority."""
    claims: tuple[Use, ...] = ()
    """Its volumes that are claims."""

    @cached_property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class BoundPod:
    """A pod on a node, or about to be there, as others see it."""

    uid: str
    namespace: str
    name: str
    node: str
    labels: Mapping[str, str]
    requests: Mapping[str, int]
    host_ports: tuple[HostPort, ...]
    owner: str
    priority: int
    created: str
    closeness: Closeness
    deleting: bool = False


@dataclass(frozen=True)
class NodeState:
    """A node and the sum of what is bound to it."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    allocatable: Mapping[str, int]
    requested: Mapping[str, int]
    host_ports: tuple[HostPort, ...]
    owners: Mapping[str, int]
    """Pods on it by owner uid, for spreading."""


def amount(resource: str, quantity: Any) -> int:
    """Integer amount of a resource: milli for cpu, whole units for the rest. Rounded up."""
    parsed = Quantity.parse(quantity)
    return parsed.milli if resource == "cpu" else parsed.value


def requests_of(pod: Object) -> dict[str, int]:
    """Effective request (KEP-753): containers and sidecars together, or the biggest init step, plus overhead."""
    spec = pod["spec"]
    total = _sum(_requests(container) for container in spec.get("containers") or ())
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            sidecars = _sum([sidecars, _requests(container)])
            step = sidecars
        else:
            step = _sum([sidecars, _requests(container)])
        peak = {name: max(peak.get(name, 0), step.get(name, 0)) for name in {*peak, *step}}
    total = _sum([total, sidecars])
    total = {name: max(total.get(name, 0), peak.get(name, 0)) for name in {*total, *peak}}
    overhead = {name: amount(name, value) for name, value in (spec.get("overhead") or {}).items()}
    return {**_sum([total, overhead]), "pods": 1}


def _requests(container: Object) -> dict[str, int]:
    wanted = (container.get("resources") or {}).get("requests") or {}
    return {name: amount(name, value) for name, value in wanted.items()}


def _sum(parts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total


def host_ports_of(pod: Object) -> tuple[HostPort, ...]:
    found = []
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            number = port.get("hostPort") or (port.get("containerPort") if pod["spec"].get("hostNetwork") else 0)
            if number:
                address = port.get("hostIP", "")
                found.append(HostPort("" if address == "0.0.0.0" else address, port.get("protocol", "TCP"), number))
    return tuple(found)


def needs_of(pod: Object) -> PodNeeds:
    """Parse a pod. Defaults have been applied by the API."""
    meta, spec = pod["metadata"], pod["spec"]
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    owner = next((str(r["uid"]) for r in meta.get("ownerReferences") or () if r.get("controller")), "")
    return PodNeeds(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        labels=meta.get("labels") or {},
        requests=requests_of(pod),
        priority=spec.get("priority") or 0,
        created=meta.get("creationTimestamp", ""),
        owner=owner,
        selector=spec.get("nodeSelector") or {},
        required=terms_of(required),
        preferred=tuple(
            (each["weight"], _term(each["preference"]))
            for each in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        ),
        tolerations=tuple(
            Toleration(t.get("key", ""), t.get("operator", "Equal"), t.get("value", ""), t.get("effect", ""))
            for t in spec.get("tolerations") or ()
        ),
        host_ports=host_ports_of(pod),
        host_network=bool(spec.get("hostNetwork")),
        closeness=closeness_of(pod),
        preempts=spec.get("preemptionPolicy") != "Never",
        claims=uses(pod),
    )


def closeness_of(pod: Object) -> Closeness:
    """Pod affinity, anti-affinity and topology spread of a pod."""
    spec, labels = pod["spec"], pod["metadata"].get("labels") or {}
    affinity = spec.get("affinity") or {}
    near, far = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
    constraints = spec.get("topologySpreadConstraints") or ()
    if not near and not far and not constraints:
        return NO_WISHES
    required, preferred = (f"{word}DuringSchedulingIgnoredDuringExecution" for word in ("required", "preferred"))
    wishes = [(each["weight"], _pod_term(each["podAffinityTerm"], labels)) for each in near.get(preferred) or ()]
    wishes += [(-each["weight"], _pod_term(each["podAffinityTerm"], labels)) for each in far.get(preferred) or ()]
    return Closeness(
        near=tuple(_pod_term(each, labels) for each in near.get(required) or ()),
        far=tuple(_pod_term(each, labels) for each in far.get(required) or ()),
        rather_near=tuple(wishes),
        spread=tuple(_spread(each, labels) for each in constraints),
    )


def _with_label_keys(selector: LabelSelector, term: Object, labels: Mapping[str, str]) -> LabelSelector:
    """``matchLabelKeys`` ask for the pod's own value of a label, ``mismatchLabelKeys`` for any other."""
    found = list(selector.requirements)
    for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
        found += [requirement(key, operator, [labels[key]]) for key in term.get(field) or () if key in labels]
    return LabelSelector(tuple(found), selector.nothing)


def _pod_term(term: Object, labels: Mapping[str, str]) -> PodTerm:
    chosen = term.get("namespaceSelector")
    return PodTerm(
        selector=_with_label_keys(from_label_selector(term.get("labelSelector")), term, labels),
        namespaces=frozenset(term.get("namespaces") or ()),
        namespace_selector=None if chosen is None else from_label_selector(chosen),
        topology_key=term["topologyKey"],
    )


def _spread(constraint: Object, labels: Mapping[str, str]) -> SpreadConstraint:
    return SpreadConstraint(
        max_skew=constraint["maxSkew"],
        topology_key=constraint["topologyKey"],
        hard=constraint.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule",
        selector=_with_label_keys(from_label_selector(constraint.get("labelSelector")), constraint, labels),
        min_domains=constraint.get("minDomains") or 1,
        honor_affinity=constraint.get("nodeAffinityPolicy", "Honor") == "Honor",
        honor_taints=constraint.get("nodeTaintsPolicy", "Ignore") == "Honor",
    )


def terms_of(selector: Object | None) -> tuple[NodeTerm, ...] | None:
    """A ``nodeSelector``: any of the terms must match. None: every node does."""
    return tuple(_term(each) for each in selector.get("nodeSelectorTerms") or ()) if selector else None


def _term(term: Object) -> NodeTerm:
    def selector(part: str) -> LabelSelector:
        parts = term.get(part) or ()
        return LabelSelector(tuple(requirement(e["key"], e["operator"], e.get("values")) for e in parts))

    return NodeTerm(selector("matchExpressions"), selector("matchFields"))


def taints_of(node: Object) -> tuple[Taint, ...]:
    """Taints of the spec, and those that its state implies until node lifecycle has written them down."""
    spec = node.get("spec") or {}
    found = [Taint(t["key"], t.get("value", ""), t["effect"]) for t in spec.get("taints") or ()]
    ready = next((c for c in (node.get("status") or {}).get("conditions") or () if c.get("type") == "Ready"), None)
    implied = Taint(NOT_READY, "", "NoSchedule")
    if (ready is None or ready.get("status") != "True") and not any(t.key.startswith("node.kuber") for t in found):
        found.append(implied)
    return tuple(found)
