"""All nodes with what is bound to them, kept current pod by pod. Memory only.

An *assumed* pod counts as bound from the moment its node is chosen, so that the next pod sees it; the event of the
bind replaces the assumption, a failed bind takes it back.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from controller.kinds.kind import Object
from controller.reconcilers import pods
from controller.scheduler.model import (
    BoundPod,
    HostPort,
    NodeState,
    PodNeeds,
    amount,
    closeness_of,
    host_ports_of,
    requests_of,
    taints_of,
)


@dataclass(slots=True)
class _Load:
    """Sum of the pods of one node."""

    requested: dict[str, int] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)
    host_ports: dict[str, tuple[HostPort, ...]] = field(default_factory=dict)

    def add(self, uid: str, bound: BoundPod, sign: int) -> None:
        for name, value in bound.requests.items():
            self.requested[name] = self.requested.get(name, 0) + sign * value
        if bound.owner:
            count = self.owners.get(bound.owner, 0) + sign
            if count:
                self.owners[bound.owner] = count
            else:
                self.owners.pop(bound.owner, None)
        if sign < 0:
            self.host_ports.pop(uid, None)
        elif bound.host_ports:
            self.host_ports[uid] = bound.host_ports


class Snapshot:
    """See the module."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeState] = {}
        self._loads: dict[str, _Load] = {}
        self._pods: dict[str, BoundPod] = {}
        self._states: dict[str, NodeState] = {}
        self._on: dict[str, dict[str, BoundPod]] = {}
        self._repelling: dict[str, BoundPod] = {}

    def put_node(self, node: Object) -> bool:
        """Returns whether the node now differs for scheduling."""
        name = node["metadata"]["name"]
        allocatable = (node.get("status") or {}).get("allocatable") or {}
        fresh = NodeState(
            name=name,
            labels=node["metadata"].get("labels") or {},
            taints=taints_of(node),
            unschedulable=bool((node.get("spec") or {}).get("unschedulable")),
            allocatable={resource: amount(resource, value) for resource, value in allocatable.items()},
            requested={},
            host_ports=(),
            owners={},
        )
        changed = self._nodes.get(name) != fresh
        if changed:
            self._nodes[name] = fresh
            self._states.pop(name, None)
        return changed

    def drop_node(self, name: str) -> None:
        self._nodes.pop(name, None)
        self._states.pop(name, None)

    def put_pod(self, pod: Object) -> bool:
        """Count a pod that is bound; drop it once it has finished. Returns whether anything is news."""
        uid, node = pod["metadata"]["uid"], pods.node_of(pod)
        if not node or pods.is_terminal(pod):
            return self.drop_pod(uid)
        meta, spec = pod["metadata"], pod["spec"]
        owner = next((str(r["uid"]) for r in meta.get("ownerReferences") or () if r.get("controller")), "")
        bound = BoundPod(
            uid=uid,
            namespace=meta["namespace"],
            name=meta["name"],
            node=node,
            labels=meta.get("labels") or {},
            requests=requests_of(pod),
            host_ports=host_ports_of(pod),
            owner=owner,
            priority=spec.get("priority") or 0,
            created=meta.get("creationTimestamp", ""),
            closeness=closeness_of(pod),
            deleting=pods.is_deleting(pod),
        )
        return self._put(uid, bound)

    def assume(self, pod: PodNeeds, node: str) -> None:
        bound = BoundPod(
            uid=pod.uid,
            namespace=pod.namespace,
            name=pod.name,
            node=node,
            labels=pod.labels,
            requests=pod.requests,
            host_ports=pod.host_ports,
            owner=pod.owner,
            priority=pod.priority,
            created=pod.created,
            closeness=pod.closeness,
        )
        self._put(pod.uid, bound)

    def drop_pod(self, uid: str) -> bool:
        bound = self._pods.pop(uid, None)
        if bound is not None:
            self._repelling.pop(uid, None)
            self._on[bound.node].pop(uid, None)
            self._loads[bound.node].add(uid, bound, -1)
            self._states.pop(bound.node, None)
        return bound is not None

    def _put(self, uid: str, bound: BoundPod) -> bool:
        if self._pods.get(uid) == bound:
            return False
        self.drop_pod(uid)
        self._pods[uid] = bound
        self._on.setdefault(bound.node, {})[uid] = bound
        if bound.closeness.far or bound.closeness.rather_near:
            self._repelling[uid] = bound
        self._loads.setdefault(bound.node, _Load()).add(uid, bound, +1)
        self._states.pop(bound.node, None)
        return True

    def nodes(self) -> list[NodeState]:
        """All nodes, sorted by name."""
        return [self._state(name) for name in sorted(self._nodes)]

    def state(self, name: str) -> NodeState | None:
        """One node."""
        return self._state(name) if name in self._nodes else None

    def bound(self) -> Collection[BoundPod]:
        """Every pod on any node."""
        return self._pods.values()

    def bound_to(self, node: str) -> Collection[BoundPod]:
        return self._on.get(node, {}).values()

    def repelling(self) -> Collection[BoundPod]:
        """Pods that care who comes near them."""
        return self._repelling.values()

    def _state(self, name: str) -> NodeState:
        found = self._states.get(name)
        if found is None:
            load = self._loads.get(name) or _Load()
            ports = tuple(port for each in load.host_ports.values() for port in each)
            found = self._states[name] = replace(
                self._nodes[name], requested=dict(load.requested), host_ports=ports, owners=dict(load.owners)
            )
        return found
