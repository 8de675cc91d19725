"""All nodes with what is bound to them, kept current pod by pod. Memory only.

An *assumed* pod counts as bound from the moment its node is chosen, so that the next pod sees it; the event of the
bind replaces the assumption, a failed bind takes it back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from controller.kinds.kind import Object
from controller.reconcilers import pods
from controller.scheduler.model import HostPort, NodeState, PodNeeds, amount, host_ports_of, requests_of, taints_of


@dataclass(frozen=True, slots=True)
class _Bound:
    node: str
    requests: Mapping[str, int]
    host_ports: tuple[HostPort, ...]
    owner: str


@dataclass(slots=True)
class _Load:
    """Sum of the pods of one node."""

    requested: dict[str, int] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)
    host_ports: dict[str, tuple[HostPort, ...]] = field(default_factory=dict)

    def add(self, uid: str, bound: _Bound, sign: int) -> None:
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
        self._pods: dict[str, _Bound] = {}
        self._states: dict[str, NodeState] = {}

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

    def put_pod(self, pod: Object) -> None:
        """Count a pod that is bound; drop it once it has finished."""
        uid, node = pod["metadata"]["uid"], pods.node_of(pod)
        if not node or pods.is_terminal(pod):
            self.drop_pod(uid)
            return
        owner = next((str(r["uid"]) for r in pod["metadata"].get("ownerReferences") or () if r.get("controller")), "")
        self._put(uid, _Bound(node, requests_of(pod), host_ports_of(pod), owner))

    def assume(self, pod: PodNeeds, node: str) -> None:
        self._put(pod.uid, _Bound(node, pod.requests, pod.host_ports, pod.owner))

    def drop_pod(self, uid: str) -> None:
        bound = self._pods.pop(uid, None)
        if bound is not None:
            self._loads[bound.node].add(uid, bound, -1)
            self._states.pop(bound.node, None)

    def _put(self, uid: str, bound: _Bound) -> None:
        if self._pods.get(uid) == bound:
            return
        self.drop_pod(uid)
        self._pods[uid] = bound
        self._loads.setdefault(bound.node, _Load()).add(uid, bound, +1)
        self._states.pop(bound.node, None)

    def nodes(self) -> list[NodeState]:
        """All nodes, sorted by name."""
        return [self._state(name) for name in sorted(self._nodes)]

    def _state(self, name: str) -> NodeState:
        found = self._states.get(name)
        if found is None:
            load = self._loads.get(name) or _Load()
            ports = tuple(port for each in load.host_ports.values() for port in each)
            found = self._states[name] = replace(
                self._nodes[name], requested=dict(load.requested), host_ports=ports, owners=dict(load.owners)
            )
        return found
