"""What must hold at every step, whatever is broken. A violation ends the run with a sentence.

Checks look at ground truth: etcd's commits as they happen, the hosts' fake kernels, the signals that containers get.
What a check says of "live" hosts means those that the controller has counted as alive for ``STEADY_S`` without a break,
so that a host that has just come back, and is catching up, is no violation.
"""

import signal
from typing import TYPE_CHECKING, Any

import orjson

from common.clock import parse_rfc3339
from common.messages import (
    AddressSetItem,
    PolicyItem,
    PortItem,
    Scope,
    ServiceItem,
    Watermark,
    decode_item,
    item_hash,
    set_digest,
)
from controller.kinds.kind import Object
from controller.network.views import POLICIES
from controller.reconcilers import pods
from controller.reconcilers.conditions import find
from controller.runtime.assembly import NODE_GRACE_S
from controller.runtime.resources import DEPLOYMENTS, NAMESPACES, NODES, PODS, PORTS, REPLICA_SETS, SERVICES
from controller.store.entry import parse_key
from nsx_agent.desired import ScopeStore
from nsx_agent.flows import Verdicts
from nsx_agent.model import ElementKey
from nsx_agent.render.addresses import short_hash
from nsx_agent.render.firewall import NamespaceFirewall
from spherelet.config import drain_timeout_s, network_timeout_s
from spherelet.model import ContainerState
from tests.sim.fakes.etcd import Version
from tests.sim.workload_checkers import WorkloadCheckers
from tests.support.packet_trace import Packet

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World

STEADY_S = 10.0
LAG_S = 20.0
"""A controller may act on what was true this long ago: its view is behind, its write on the way."""
PROBED_PORTS = (80, 81)
ADDRESSES_MAX = 8
BACKEND_SETS = ("slots", "stickers", "nodeslots", "nodestickers")


class Violation(AssertionError):
    """A promise was broken."""


class Checkers:
    """One per run. ``objects`` is etcd's content by key."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.objects: dict[str, Object] = {}
        self.checks: dict[str, int] = {}
        """How often each check had something to look at: one that never has is no check."""
        self._bound: dict[str, str] = {}
        self._network_revision = 0
        self._allowed: dict[str, list[tuple[float, int]]] = {}
        self._readiness: dict[str, float] = {}
        self._confirmed: dict[tuple[str, str], dict[str, bytes]] = {}
        """Items of a scope at the agent's last watermark, by host and scope."""
        self.user_deleted: set[str] = set()
        self._workloads = WorkloadCheckers(self)

    def count(self, what: str) -> None:
        """A check had something to look at."""
        self.checks[what] = self.checks.get(what, 0) + 1

    def require(self, holds: bool, sentence: str) -> None:
        """Raises ``Violation`` in the world's own task, however deep this is called."""
        if not holds:
            self._world.violate(Violation(f"at {self._world.now():.3f} s: {sentence}"))

    def of(self, resource: Any) -> list[Object]:
        """All objects of a resource as etcd has them now."""
        return [obj for key, obj in self.objects.items() if parse_key(key)[0] == resource]

    # etcd

    def on_commit(self, versions: list[Version]) -> None:
        """A revision happened."""
        for version in versions:
            key = version.key.decode()
            resource, _, _ = parse_key(key)
            old = self.objects.pop(key, None)
            new: Object | None = None
            if version.value is not None:
                new = self.objects[key] = orjson.loads(version.value)
            if resource == PODS:
                self._pod(old, new)
            elif resource == NODES and old is not None and new is not None:
                self._node(old, new)
            elif resource == PORTS:
                self._port(old, new, version.revision)
            elif resource in (DEPLOYMENTS, REPLICA_SETS) and new is not None:
                self._size(resource, new)
                if resource == REPLICA_SETS:
                    self._scaled(old, new)
            elif resource in (POLICIES, NAMESPACES) and _changed(old, new):
                self._network_revision = version.revision
            if resource in (POLICIES, SERVICES) and new is not None:
                self._realized(resource, old, new)

    def _node(self, old: Object, new: Object) -> None:
        """A host is called dead only for a silence that is its own."""
        states = [find((each.get("status") or {}).get("conditions"), "Ready") or {} for each in (old, new)]
        if states[1].get("status") != "Unknown" or states[0].get("status") == "Unknown":
            return
        self.count("host called dead")
        up_s = self._world.now() - self._world.etcd.up_since
        name = new["metadata"]["name"]
        self.require(up_s >= NODE_GRACE_S - 1.0, f"{name} is called dead {up_s:.1f} s after etcd came back")

    def _pod(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        meta, node = new["metadata"], pods.node_of(new)
        uid = meta["uid"]
        known = self._bound.get(uid, "")
        self.require(not known or known == node, f"pod {meta['name']} was bound to {known} and is now on {node!r}")
        if node:
            self.count("bound once")
            self._bound[uid] = node
        self._workloads.on_pod(old, new)
        owner = next((each["uid"] for each in meta.get("ownerReferences", ()) if each["kind"] == "ReplicaSet"), None)
        if owner is None:
            return
        if old is None:
            self._surge(owner, meta["name"])
        was, now = old is not None and pods.is_ready(old), pods.is_ready(new)
        if was != now and not pods.is_deleting(new):
            self._readiness[owner] = self._world.now()
        if old is not None and pods.is_deleting(new) and not pods.is_deleting(old) and was:
            if uid not in self.user_deleted:
                self._availability(owner, meta["name"])
            else:
                self._readiness[owner] = self._world.now()

    def _size(self, resource: Any, obj: Object) -> None:
        """Remember how many pods were allowed until when."""
        wanted = obj["spec"].get("replicas", 1)
        if resource == DEPLOYMENTS:
            wanted += _share(obj, "maxSurge", wanted, up=True)
        history = self._allowed.setdefault(obj["metadata"]["uid"], [])
        history.append((self._world.now(), wanted))

    def _most_allowed(self, uid: str) -> int:
        """Most pods that anybody who is at most ``LAG_S`` behind may believe are allowed."""
        history = self._allowed.get(uid, [])
        since = self._world.now() - LAG_S
        recent = [count for at, count in history if at >= since]
        before = [count for at, count in history if at < since][-1:]
        return max([*recent, *before], default=0)

    def _active(self, replica_set: str) -> list[Object]:
        return [
            pod
            for pod in self.of(PODS)
            if pods.is_active(pod)
            and any(owner["uid"] == replica_set for owner in pod["metadata"].get("ownerReferences", ()))
        ]

    def _surge(self, replica_set: str, name: str) -> None:
        self.count("surge")
        most = self._most_allowed(replica_set)
        active = len(self._active(replica_set))
        self.require(active <= most, f"{name} is pod number {active} of a ReplicaSet of {most}")

    def _scaled(self, old: Object | None, new: Object) -> None:
        """A ReplicaSet was made or grew: all of its Deployment's may not want more than it allows."""
        if new["spec"].get("replicas", 1) <= (old["spec"].get("replicas", 1) if old is not None else 0):
            return
        deployment = self._deployment_of(new["metadata"]["uid"])
        if deployment is None:
            return
        self.count("surge of sizes")
        uid = deployment["metadata"]["uid"]
        sets = [each for each in self.of(REPLICA_SETS) if each["metadata"]["uid"] in self._replica_sets_of(uid)]
        total, most = sum(each["spec"].get("replicas", 1) for each in sets), self._most_allowed(uid)
        name = new["metadata"]["name"]
        self.require(total <= most, f"{name} grew: {total} pods are wanted of a Deployment that may have {most}")

    def _availability(self, replica_set: str, name: str) -> None:
        """A ready pod was deleted, not by the user: enough must be left, if nothing else changed lately."""
        deployment = self._deployment_of(replica_set)
        if deployment is None or pods.is_deleting(deployment):
            return
        sets = self._replica_sets_of(deployment["metadata"]["uid"])
        moment = self._world.now()
        if any(moment - self._readiness.get(each, -LAG_S) < LAG_S for each in sets):
            return
        if any(not self._world.steady(host.name) for host in self._world.hosts):
            return
        self.count("availability")
        wanted = min(count for at, count in self._wanted_lately(deployment)) - _share(
            deployment, "maxUnavailable", deployment["spec"]["replicas"], up=False
        )
        ready = sum(pods.is_ready(pod) for each in sets for pod in self._active(each))
        self.require(ready >= wanted, f"deleting {name} leaves {ready} ready pods of at least {wanted}")

    def _wanted_lately(self, deployment: Object) -> list[tuple[float, int]]:
        wanted = deployment["spec"]["replicas"]
        surge = _share(deployment, "maxSurge", wanted, up=True)
        history = self._allowed.get(deployment["metadata"]["uid"], [])
        since = self._world.now() - LAG_S
        recent = [(at, count - surge) for at, count in history if at >= since]
        return [*recent, (self._world.now(), wanted)]

    def _deployment_of(self, replica_set: str) -> Object | None:
        found = next((each for each in self.of(REPLICA_SETS) if each["metadata"]["uid"] == replica_set), None)
        owners = [] if found is None else found["metadata"].get("ownerReferences", [])
        uids = {owner["uid"] for owner in owners}
        return next((each for each in self.of(DEPLOYMENTS) if each["metadata"]["uid"] in uids), None)

    def _replica_sets_of(self, deployment: str) -> list[str]:
        return [
            each["metadata"]["uid"]
            for each in self.of(REPLICA_SETS)
            if any(owner["uid"] == deployment for owner in each["metadata"].get("ownerReferences", ()))
        ]

    def _port(self, old: Object | None, new: Object | None, revision: int) -> None:
        if old is None and new is not None:
            address = new["spec"]["address"]
            holders = [port for port in self.of(PORTS) if port["spec"]["address"] == address]
            self.count("address held once")
            self.require(len(holders) == 1, f"{address} was given out twice")
        if old is not None and new is None:
            self._released(old)

    def _released(self, port: Object) -> None:
        """The address may be given out again: nobody may still know it."""
        self.count("address forgotten")
        spec = port["spec"]
        address = spec["address"]
        living = [pod["metadata"]["name"] for pod in self.of(PODS) if pod["metadata"]["uid"] == spec["podUID"]]
        self.require(not living, f"{address} was released while its pod {living} is there")
        for host in self._world.steady_hosts():
            known = [key for key, data in host.kernel.entries.items() if _mentions(key, data, address)]
            self.require(not known, f"{address} was released while the kernel of {host.name} has {known[:3]}")
            routed = (254, f"{address}/32") in host.kernel.routing
            self.require(not routed, f"{address} was released while {host.name} routes it")

    def _realized(self, resource: Any, old: Object | None, new: Object) -> None:
        found = find((new.get("status") or {}).get("conditions"), "Realized")
        before = find(((old or {}).get("status") or {}).get("conditions"), "Realized")
        if found is None or found["status"] != "True" or found == before:
            return
        meta = new["metadata"]
        network = self._world.network
        if found.get("observedGeneration") != meta.get("generation") or network is None:
            return
        namespace, name = meta["namespace"], meta["name"]
        if resource == POLICIES:
            scope, key = Scope.namespace(namespace), f"policy/{name}"
        else:
            scope, key = Scope.cluster(), f"service/{namespace}/{name}"
        wanted = network.planner.desired.scopes.get(scope)
        payload = wanted.items.get(key) if wanted is not None else None
        if payload is None:
            return
        for host in self._world.steady_hosts():
            if not self._world.steady(host.name, scope.path):
                continue
            self.count("realized")
            held = self._confirmed.get((host.name, scope.path), {}).get(key)
            # Endpoints come and go without a new generation; the policy is as it was written.
            same = held is not None and (resource == SERVICES or held == payload)
            self.require(same, f"{key} is Realized, but {host.name} has not confirmed it")

    # Agents

    def on_watermark(self, host: "Host", watermark: Watermark) -> None:
        """The agent says that its kernel has a scope."""
        agent = host.agent
        assert agent is not None
        store = agent.desired.by_path(watermark.scope)
        if store is None or watermark.failures:
            return
        self.count("watermark")
        self._confirmed[host.name, watermark.scope] = dict(store.held)
        digest = set_digest(item_hash(key, payload) for key, payload in store.held.items())
        self.require(digest == watermark.digest, f"{host.name} confirms {watermark.scope} without holding it")
        if watermark.scope.startswith("ns/"):
            self.check_enforced(host, watermark.scope.removeprefix("ns/"), "it was confirmed")
        elif watermark.scope == "cluster":
            self._balanced(host, store)

    def check_enforced(self, host: "Host", namespace: str, why: str) -> None:
        """The kernel denies what the last complete intent of the host denies."""
        agent = host.agent
        if agent is None:
            return
        store = agent.desired.by_path(f"ns/{namespace}")
        ports = [item for item in _items(agent.desired.host) if isinstance(item, PortItem)]
        local = tuple(sorted(port.address for port in ports if port.namespace == namespace))
        if store is None or not store.complete or not local:
            return
        items = [decode_item(key, payload) for key, payload in sorted(store.held.items())]
        sets = {item.id: item for item in items if isinstance(item, AddressSetItem)}
        policies = {f"policy/{item.name}": item for item in items if isinstance(item, PolicyItem)}
        judge = Verdicts(NamespaceFirewall(namespace, True, sets, policies, local))
        packet = Packet(host.kernel.entries)
        peers = sorted(port["spec"]["address"] for port in self.of(PORTS))[:ADDRESSES_MAX]
        self.count("enforced")
        for pod in local[:ADDRESSES_MAX]:
            for peer in peers:
                for number in PROBED_PORTS:
                    if not judge.allows("ingress", pod, peer, "tcp", pod, number):
                        passes = packet.enters(peer, pod, "tcp", number)
                        self.require(not passes, f"{host.name} lets {peer} reach {pod}:{number} although {why}")
                    if not judge.allows("egress", pod, peer, "tcp", peer, number):
                        passes = packet.leaves(pod, peer, "tcp", number)
                        self.require(not passes, f"{host.name} lets {pod} out to {peer}:{number} although {why}")

    def _balanced(self, host: "Host", store: ScopeStore) -> None:
        """Every service that is held has exactly its backends in the kernel."""
        entries = host.kernel.entries
        dead = {item.name for item in _items(store) if type(item).__name__ == "HostItem" and not item.alive}
        for service in (item for item in _items(store) if isinstance(item, ServiceItem)):
            for port in service.ports:
                where = f"{service.cluster_ip} . {port.protocol} . {port.port} . "
                wanted = {f"{one.address} . {one.port}" for one in port.backends if one.host not in dead}
                have = {
                    data
                    for key, data in entries.items()
                    if isinstance(key, ElementKey) and key.set == "slots" and key.key.startswith(where)
                }
                text = f"{host.name} confirms {service.name} with {sorted(map(str, have))}, not {sorted(wanted)}"
                self.require(not service.cluster_ip or have == wanted, text)

    # Barriers

    def on_port_state(self, uid: str, *, cleared: bool, drained: bool) -> None:
        """The planner is about to say that a pod may start or stop."""
        network = self._world.network
        if network is None or uid not in network.planner.ports:
            return
        port = network.planner.ports[uid]
        if drained and not network.planner.is_drained(uid):
            self.count("drained")
            for host in self._world.steady_hosts():
                slots = [key for key, data in host.kernel.entries.items() if _is_backend(key, data, port.address)]
                slots = [] if self._is_last_resort(port.address) else slots
                self.require(
                    not slots, f"{port.address} counts as drained, but {host.name} balances to it: {slots[:2]}"
                )
        bound = self.revision_of_port(port.address)
        if cleared and not network.planner.is_cleared(uid) and self._network_revision < bound:
            self._cleared(port.address, bound)

    def _is_last_resort(self, address: str) -> bool:
        """Whether a service without ready endpoints falls back on this terminating one, as Kubernetes does."""
        network = self._world.network
        assert network is not None
        if network.planner.wanted_as_backend(address):
            return False
        items = network.planner.desired.scopes[Scope.cluster()].items
        services = (decode_item(key, payload) for key, payload in items.items() if key.startswith("service/"))
        return any(
            backend.address == address
            for service in services
            if isinstance(service, ServiceItem)
            for port in service.ports
            for backend in port.backends
        )

    def revision_of_port(self, address: str) -> int:
        """etcd's revision of the address's Port, 0 without one."""
        key = next((key for key, obj in self.objects.items() if _is_port(key, obj, address)), None)
        version = self._world.etcd.at(key.encode()) if key is not None else None
        return version.revision if version is not None else 0

    def _cleared(self, address: str, bound: int) -> None:
        network = self._world.network
        assert network is not None
        self.count("cleared")
        for scope, items in network.planner.desired.scopes.items():
            if not scope.path.startswith("ns/"):
                continue
            namespace = scope.path.removeprefix("ns/")
            for key, payload in items.items.items():
                item = decode_item(key, payload)
                if not isinstance(item, AddressSetItem) or address not in item.members:
                    continue
                element = ElementKey(f"s_{short_hash(namespace, item.id)}", address)
                for host in self._world.steady_hosts():
                    if not self._world.steady(host.name, scope.path) or host.agent is None:
                        continue
                    store = host.agent.desired.by_path(scope.path)
                    held = store.held.get(key) if store is not None else None
                    known = held is not None and address in decode_item(key, held).members  # type: ignore[attr-defined]
                    self.require(
                        known, f"{address} counts as cleared, but {host.name} does not hold it in {element.set}"
                    )

    def on_start(self, host: "Host", state: ContainerState) -> None:
        """A container's process begins."""
        self.count("start")
        self._workloads.on_start(self._world.hosts, state)
        agent = host.agent
        port = agent.intent.port(state.pod_uid) if agent is not None and agent.started else None
        waited_s = self._world.now() - host.asked.get(("add", state.pod_uid), self._world.now())
        if port is not None:
            self.require(
                port.cleared or waited_s >= network_timeout_s - 0.001 or state.attempt > 0,
                f"{state.name} of {port.name} starts uncleared after {waited_s:.3f} s",
            )
        pod = next((pod for pod in self.of(PODS) if pod["metadata"]["uid"] == state.pod_uid), None)
        self.require(
            pod is None or pods.node_of(pod) == host.name, f"a container of a pod of another host starts on {host.name}"
        )

    def on_signal(self, host: "Host", state: ContainerState, number: int) -> None:
        """A container's process gets a signal."""
        pod = next((pod for pod in self.of(PODS) if pod["metadata"]["uid"] == state.pod_uid), None)
        if number != signal.SIGTERM or pod is None or not pods.is_deleting(pod):
            return
        self.count("SIGTERM")
        agent = host.agent
        port = agent.intent.port(state.pod_uid) if agent is not None else None
        meta = pod["metadata"]
        grace_s = float(meta.get("deletionGracePeriodSeconds", 30))
        marked = self._world.clock.now() - (parse_rfc3339(meta["deletionTimestamp"]) - grace_s)
        waited_s = max(0.0, self._world.now() - host.asked.get(("drained", state.pod_uid), self._world.now()))
        bounded = waited_s >= min(drain_timeout_s, grace_s) - 0.001
        gone = port is None and agent is not None and agent.started
        drained = port is not None and port.drained
        self.require(
            drained or gone or bounded,
            f"{meta['name']} gets SIGTERM {waited_s:.3f} s after asking and {marked:.0f} s after deletion, undrained",
        )


def _items(store: ScopeStore) -> list[Any]:
    return [decode_item(key, payload) for key, payload in sorted(store.held.items())]


def _changed(old: Object | None, new: Object | None) -> bool:
    """More than the status."""
    if old is None or new is None:
        return True
    labels = [each["metadata"].get("labels") for each in (old, new)]
    return old.get("spec") != new.get("spec") or labels[0] != labels[1]


def _share(deployment: Object, name: str, wanted: int, *, up: bool) -> int:
    """maxSurge and maxUnavailable, as absolute numbers."""
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    value = rolling.get(name, "25%")
    if isinstance(value, int):
        return value
    percent = wanted * int(value.removesuffix("%"))
    return -(-percent // 100) if up else percent // 100


def _mentions(key: object, data: object, address: str) -> bool:
    if not isinstance(key, ElementKey):
        return False
    return address in f"{key.key} . {data}".split(" . ") or _is_backend(key, data, address)


def _is_backend(key: object, data: object, address: str) -> bool:
    return isinstance(key, ElementKey) and key.set in BACKEND_SETS and str(data).startswith(f"{address} . ")


def _is_port(key: str, obj: Object, address: str) -> bool:
    return parse_key(key)[0] == PORTS and obj["spec"]["address"] == address
