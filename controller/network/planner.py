"""From objects to desired state, incrementally: a change costs what it changes. No IO.

``apply`` (one object changed) and the ``set_*`` calls (presence, barrier flags) only mark dirty; ``plan`` computes the
items of what is dirty and returns the differences. A planner that is fed all objects at once, in any order, arrives at
the same desired state: that is the full recompute, and a property test holds both to each other.
"""

from collections import Counter
from collections.abc import Callable
from typing import cast

from common.messages import BlockItem, HostItem, HostPortsItem, PortItem, Scope
from controller.kinds.kind import ResourceKey
from controller.network.desired import Changes, Desired
from controller.network.policy import CompiledPolicy, compile_policy, policy_item, set_item
from controller.network.services import Standing, compile_service
from controller.network.sets import Member, SetTable
from controller.network.span import Span, interest
from controller.network.views import (
    ADDRESS_BLOCKS,
    ENDPOINT_SLICES,
    NAMESPACES,
    NODES,
    PODS,
    POLICIES,
    PORTS,
    SEGMENTS,
    SERVICES,
    BlockView,
    Endpoint,
    NamespaceView,
    NodeView,
    PodView,
    PolicyView,
    PortView,
    SegmentView,
    ServiceView,
    SliceView,
    View,
)

Key = tuple[str, str]
"""Namespace (empty for cluster-scoped) and name."""
CLUSTER = Scope.cluster()
INTEREST_KEY = "interest/namespaces"


class Planner:
    """Everything the network plan knows, and the plan. One per process."""

    def __init__(self) -> None:
        self.desired = Desired()
        self.span = Span()
        self.sets = SetTable()
        self.nodes: dict[str, NodeView] = {}
        self.pods: dict[str, PodView] = {}
        """By uid."""
        self.ports: dict[str, PortView] = {}
        """By pod uid; only those that are bound."""
        self._views: dict[tuple[ResourceKey, Key], View] = {}
        self._compiled: dict[Key, CompiledPolicy] = {}
        self._slices: dict[Key, dict[str, SliceView]] = {}
        self._ready: dict[Key, frozenset[str]] = {}
        self._ready_count: Counter[str] = Counter()
        self._blocks: dict[str, set[str]] = {}
        self._block_keys: dict[str, str] = {}
        self._port_hosts: dict[str, str] = {}
        self._port_at: dict[str, PortView] = {}
        self._services_of: dict[str, Counter[Key]] = {}
        self._online: dict[str, bool] = {}
        self._cleared: set[str] = set()
        self._drained: set[str] = set()
        self._dirty: set[tuple[ResourceKey, Key]] = set()
        self._dirty_ports: set[str] = set()
        self._dirty_interest: set[str] = set()
        self._moved_spans: set[str] = set()
        self._moved_hosts: set[str] = set()
        self.desired.open(CLUSTER)

    # Input

    def apply(self, resource: ResourceKey, namespace: str, name: str, view: View | None) -> bool:
        """An object now has this view, or (None) is gone. False if that has no effect on the network."""
        key = (namespace, name)
        old = self._views.get((resource, key))
        if old == view:
            return False
        if view is None:
            del self._views[(resource, key)]
        else:
            self._views[(resource, key)] = view
        self._dirty.add((resource, key))
        _HANDLERS[resource](self, old, view)
        return True

    def view(self, resource: ResourceKey, namespace: str, name: str) -> View | None:
        return self._views.get((resource, (namespace, name)))

    def set_online(self, host: str, online: bool) -> None:
        """The host's agent is, or is no longer, connected."""
        was = self.alive(host)
        self._online[host] = online
        if was != self.alive(host):
            self._alive_changed(host)

    def alive(self, host: str) -> bool:
        """Whether to count on the host: its agent is connected, its node exists and holds its lease."""
        node = self.nodes.get(host)
        return node is not None and not node.lost and self._online.get(host, False)

    def set_port_state(self, uid: str, *, cleared: bool, drained: bool) -> None:
        """Barrier flags of a pod's port."""
        for flags, on in ((self._cleared, cleared), (self._drained, drained)):
            if on != (uid in flags):
                flags.symmetric_difference_update({uid})
                self._dirty_ports.add(uid)

    def is_cleared(self, uid: str) -> bool:
        return uid in self._cleared

    def is_drained(self, uid: str) -> bool:
        return uid in self._drained

    def wanted_as_backend(self, address: str) -> bool:
        """Whether a service sends new connections to ``address`` because it is ready."""
        return self._ready_count[address] > 0

    def sets_of_policy(self, namespace: str, name: str) -> frozenset[str]:
        """Item keys of the sets that a policy refers to."""
        compiled = self._compiled.get((namespace, name))
        return frozenset(f"set/{spec.id}" for spec in compiled.published) if compiled else frozenset()

    def block_names(self, host: str, segment: str) -> list[str]:
        """Names of the AddressBlocks of ``segment`` on ``host``."""
        views = [cast(BlockView, self._views[(ADDRESS_BLOCKS, ("", name))]) for name in self._blocks.get(segment, ())]
        return [view.name for view in views if view.host == host]

    def take_moved_spans(self) -> set[str]:
        """Namespaces that other hosts hold now than at the last call."""
        moved, self._moved_spans = self._moved_spans, set()
        return moved

    def take_moved_hosts(self) -> set[str]:
        """Hosts that came, went, or may hold other namespaces now than at the last call."""
        moved, self._moved_hosts = self._moved_hosts, set()
        return moved

    @property
    def dirty(self) -> bool:
        return bool(self._dirty or self._dirty_ports or self._dirty_interest)

    # Plan

    def plan(self) -> Changes:
        """Compute what is dirty; return what differs from the last call, scope by scope."""
        dirty, self._dirty = self._dirty, set()
        for resource, key in sorted(dirty):
            planner = _PLANS.get(resource)
            if planner is not None:
                planner(self, key)
        self._plan_policies({key for resource, key in dirty if resource == POLICIES})
        for uid in sorted(self._dirty_ports):
            self._plan_port(uid)
            self._plan_host_ports(uid)
        self._dirty_ports.clear()
        for host in sorted(self._dirty_interest):
            held = self.span.namespaces(host)
            known = host in self.nodes or bool(held)
            self.desired.put(Scope.host(host), INTEREST_KEY, interest(held) if known else None)
        self._moved_hosts |= self._dirty_interest
        self._dirty_interest.clear()
        self._open_and_close(dirty)
        return self.desired.take_changes()

    def _plan_policies(self, changed: set[Key]) -> None:
        for key in sorted(changed):
            view = cast(PolicyView | None, self._views.get((POLICIES, key)))
            scope = Scope.namespace(key[0])
            old = self._compiled.pop(key, None)
            if view is not None:
                compiled = self._compiled[key] = compile_policy(view)
                self.sets.refer(key, compiled)
            else:
                self.desired.put(scope, f"policy/{key[1]}", None)
            for spec in self.sets.drop(key, old) if old is not None else ():
                self.desired.put(scope, f"set/{spec.id}", None)
        for key in sorted((changed | self.sets.dirty_policies) & self._compiled.keys()):
            item = policy_item(self._compiled[key], self.sets.members)
            self.desired.put(Scope.namespace(key[0]), f"policy/{key[1]}", item)
        self.sets.dirty_policies.clear()
        for spec in self.sets.dirty_sets:
            item_of_set = set_item(spec, (member.address for member in self.sets.members(spec)))
            for namespace in self.sets.scopes(spec):
                self.desired.put(Scope.namespace(namespace), f"set/{spec.id}", item_of_set)
        self.sets.dirty_sets.clear()

    def _plan_service(self, key: Key) -> None:
        view = cast(ServiceView | None, self._views.get((SERVICES, key)))
        slices = self._slices.get(key, {})
        compiled = None
        if view is not None and (view.cluster_ip or view.external_name):
            compiled = compile_service(view, [slices[name] for name in sorted(slices)], self._standing)
        self.desired.put(CLUSTER, f"service/{key[0]}/{key[1]}", compiled.item if compiled else None)
        self._ready_count.subtract(self._ready.pop(key, frozenset()))
        if compiled is not None and compiled.ready:
            self._ready[key] = compiled.ready
            self._ready_count.update(compiled.ready)

    def _standing(self, endpoint: Endpoint) -> Standing:
        ports = [self._port_at[address] for address in endpoint.addresses if address in self._port_at]
        if any(port.quarantined or port.pod_uid not in self.pods for port in ports):
            return Standing.POD_GONE
        return Standing.HOST_LOST if endpoint.host and not self.alive(endpoint.host) else Standing.SOUND

    def _plan_node(self, key: Key) -> None:
        node = self.nodes.get(key[1])
        item = None
        if node is not None and node.underlay:
            item = HostItem(name=node.name, underlay=node.underlay, alive=self.alive(node.name))
        self.desired.put(CLUSTER, f"host/{key[1]}", item)

    def _plan_segment(self, key: Key) -> None:
        for name in sorted(self._blocks.get(key[1], ())):
            self._plan_block(("", name))

    def _plan_block(self, key: Key) -> None:
        block = cast(BlockView | None, self._views.get((ADDRESS_BLOCKS, key)))
        segment = cast(SegmentView | None, self._views.get((SEGMENTS, ("", block.segment)))) if block else None
        known = self._block_keys.pop(key[1], "")
        if block is None or segment is None:
            if known:
                self.desired.put(CLUSTER, known, None)
            return
        item = BlockItem(cidr=block.cidr, vni=segment.vni, host=block.host, namespace=block.segment)
        self._block_keys[key[1]] = f"block/{block.cidr.replace('/', '-')}"
        self.desired.put(CLUSTER, self._block_keys[key[1]], item)

    def _plan_port(self, uid: str) -> None:
        port, pod = self.ports.get(uid), self.pods.get(uid)
        host = self._port_hosts.pop(uid, "")
        if port is None or pod is None:
            self._cleared.discard(uid)
            self._drained.discard(uid)
            if host:
                self.desired.put(Scope.host(host), f"port/{uid}", None)
            return
        namespace = cast(NamespaceView | None, self._views.get((NAMESPACES, ("", port.namespace))))
        item = PortItem(
            pod_uid=uid,
            namespace=port.namespace,
            name=port.pod,
            address=port.address,
            mac=port.mac,
            vni=port.vni,
            strict=namespace is not None and namespace.strict,
            cleared=uid in self._cleared,
            drained=uid in self._drained,
        )
        if host and host != port.host:
            self.desired.put(Scope.host(host), f"port/{uid}", None)
        self._port_hosts[uid] = port.host
        self.desired.put(Scope.host(port.host), f"port/{uid}", item)

    def _plan_host_ports(self, uid: str) -> None:
        pod, port = self.pods.get(uid), self.ports.get(uid)
        item = None
        if pod is not None and pod.host_ports and pod.host and not pod.finished and (pod.host_network or port):
            address = "" if port is None or pod.host_network else port.address
            item = HostPortsItem(pod_uid=uid, host=pod.host, address=address, ports=pod.host_ports)
        self.desired.put(CLUSTER, f"hostports/{uid}", item)

    def _open_and_close(self, dirty: set[tuple[ResourceKey, Key]]) -> None:
        """Scopes exist for every namespace and node, and for what still has items or holders."""
        namespaces = {key[1] for resource, key in dirty if resource == NAMESPACES}
        namespaces |= {key[0] for resource, key in dirty if resource in (POLICIES, PORTS)}
        hosts = {key[1] for resource, key in dirty if resource == NODES} | self.desired.changed_hosts()
        for name in sorted(namespaces):
            scope = Scope.namespace(name)
            wanted = (NAMESPACES, ("", name)) in self._views or bool(self.span.hosts(name))
            self._open_or_close(scope, wanted)
        for name in sorted(hosts):
            self._open_or_close(Scope.host(name), name in self.nodes)

    def _open_or_close(self, scope: Scope, wanted: bool) -> None:
        if wanted or self.desired.keys(scope):
            self.desired.open(scope)
        else:
            self.desired.close(scope)

    # What a change touches besides its own object

    def _on_namespace(self, old: View | None, new: View | None) -> None:
        before, after = cast(NamespaceView | None, old), cast(NamespaceView | None, new)
        name = (after or cast(NamespaceView, before)).name
        self.sets.put_namespace(name, after.labels if after else None)
        if (before is not None and before.strict) != (after is not None and after.strict):
            self._dirty_ports.update(uid for uid, port in self.ports.items() if port.namespace == name)

    def _on_node(self, old: View | None, new: View | None) -> None:
        before, after = cast(NodeView | None, old), cast(NodeView | None, new)
        name = (after or cast(NodeView, before)).name
        was = self.alive(name)
        if after is None:
            self.nodes.pop(name, None)
        else:
            self.nodes[name] = after
        self._dirty_interest.add(name)
        if was != self.alive(name):
            self._alive_changed(name)

    def _alive_changed(self, host: str) -> None:
        self._dirty.add((NODES, ("", host)))
        for key, slices in self._slices.items():
            if any(endpoint.host == host for each in slices.values() for endpoint in each.endpoints):
                self._dirty.add((SERVICES, key))

    def _on_pod(self, old: View | None, new: View | None) -> None:
        before, after = cast(PodView | None, old), cast(PodView | None, new)
        if before is not None:
            self.pods.pop(before.uid, None)
        if after is not None:
            self.pods[after.uid] = after
        if before is None or after is None or before.uid != after.uid:
            for each in (before, after):
                port = self.ports.get(each.uid) if each is not None else None
                if port is not None:
                    self._address_changed(port.address)
        for uid in {each.uid for each in (before, after) if each is not None}:
            self._member_changed(uid)

    def _on_port(self, old: View | None, new: View | None) -> None:
        before, after = cast(PortView | None, old), cast(PortView | None, new)
        for each, change in ((before, self.span.remove), (after, self.span.add)):
            if each is not None and change(each):
                self._moved_spans.add(each.namespace)
        if before is not None:
            if self._port_at.get(before.address) == before:
                del self._port_at[before.address]
            if self.ports.get(before.pod_uid) == before:
                del self.ports[before.pod_uid]
        if after is not None:
            self._port_at[after.address] = after
            if not after.quarantined:
                self.ports[after.pod_uid] = after
        for each in (before, after):
            if each is not None:
                self._dirty_interest.add(each.host)
                self._member_changed(each.pod_uid)
                self._address_changed(each.address)

    def _address_changed(self, address: str) -> None:
        self._dirty.update((SERVICES, key) for key in self._services_of.get(address, ()))

    def _member_changed(self, uid: str) -> None:
        pod, port = self.pods.get(uid), self.ports.get(uid)
        member = None
        if pod is not None and port is not None and not pod.host_network and not pod.finished:
            member = Member(uid, pod.namespace, port.address, pod.labels, pod.named_ports)
        self.sets.put_member(uid, member)
        self._dirty_ports.add(uid)

    def _on_slice(self, old: View | None, new: View | None) -> None:
        before, after = cast(SliceView | None, old), cast(SliceView | None, new)
        if before is not None:
            key = (before.namespace, before.service)
            slices = self._slices[key]
            del slices[before.name]
            if not slices:
                del self._slices[key]
            self._dirty.add((SERVICES, key))
            for address in before.addresses:
                self._services_of[address][key] -= 1
                if not self._services_of[address][key]:
                    del self._services_of[address][key]
                if not self._services_of[address]:
                    del self._services_of[address]
        if after is not None:
            key = (after.namespace, after.service)
            self._slices.setdefault(key, {})[after.name] = after
            self._dirty.add((SERVICES, key))
            for address in after.addresses:
                self._services_of.setdefault(address, Counter())[key] += 1

    def _on_block(self, old: View | None, new: View | None) -> None:
        before, after = cast(BlockView | None, old), cast(BlockView | None, new)
        if before is not None:
            self._blocks[before.segment].discard(before.name)
        if after is not None:
            self._blocks.setdefault(after.segment, set()).add(after.name)

    def _on_other(self, old: View | None, new: View | None) -> None:
        """Touches nothing but itself."""


_HANDLERS: dict[ResourceKey, Callable[[Planner, View | None, View | None], None]] = {
    NAMESPACES: Planner._on_namespace,
    NODES: Planner._on_node,
    PODS: Planner._on_pod,
    PORTS: Planner._on_port,
    ENDPOINT_SLICES: Planner._on_slice,
    ADDRESS_BLOCKS: Planner._on_block,
    SEGMENTS: Planner._on_other,
    SERVICES: Planner._on_other,
    POLICIES: Planner._on_other,
}

_PLANS: dict[ResourceKey, Callable[[Planner, Key], None]] = {
    SERVICES: Planner._plan_service,
    NODES: Planner._plan_node,
    SEGMENTS: Planner._plan_segment,
    ADDRESS_BLOCKS: Planner._plan_block,
}
