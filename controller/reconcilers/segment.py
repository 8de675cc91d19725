"""Segment per namespace: a VNI and subnets, grown before the last block is gone, removed after the last port.

One key for all segments: subnets and VNIs are given out one plan at a time, on a view that has every earlier one.
"""

from collections.abc import Mapping

from controller.kinds.kind import Object, ResourceKey
from controller.network import ipam
from controller.network.ipam import Cidr
from controller.reconcilers import conditions
from controller.runtime.indexes import blocks_of
from controller.runtime.reconciler import Map
from controller.runtime.resources import ADDRESS_BLOCKS, NAMESPACES, NETWORK_API, PORTS, SEGMENTS
from controller.runtime.view import View
from controller.runtime.writes import Create, Delete, Plan, Update, UpdateStatus, Write
from controller.store.cache import Change

ALL = "segments"
FREE_BLOCKS_MIN = 4


def _all(view: View, change: Change) -> tuple[str, ...]:
    """Only what comes or goes matters."""
    return () if change.type == "MODIFIED" and change.entry.resource != SEGMENTS else (ALL,)


def _last_port(view: View, change: Change) -> tuple[str, ...]:
    """A port holds the segment of a namespace that is gone."""
    held = change.type != "DELETED" or view.entry(NAMESPACES, "", change.entry.namespace) is not None
    return () if held else (ALL,)


class SegmentReconciler:
    """See the module. Prefix lengths are those of the config's network section."""

    name = "segment-controller"
    watches: Mapping[ResourceKey, Map] = {NAMESPACES: _all, SEGMENTS: _all, ADDRESS_BLOCKS: _all, PORTS: _last_port}

    def __init__(self, pod_cidr: str, segment_prefix: int, block_prefix: int) -> None:
        self._range = Cidr.parse(pod_cidr)
        self._segment_prefix = segment_prefix
        self._block_prefix = block_prefix

    def plan(self, view: View, key: str, now: float) -> Plan:
        segments = {each["metadata"]["name"]: each for each in view.objects(SEGMENTS)}
        namespaces = {entry.name for entry in view.entries(NAMESPACES)}
        bases = {Cidr.parse(each).base for s in segments.values() for each in s["spec"]["subnets"]}
        vnis = {int(each["spec"]["vni"]) for each in segments.values()}
        writes: list[Write] = []
        for name in sorted(segments.keys() - namespaces):
            writes += self._removal(view, segments[name])
        for name in sorted(namespaces & segments.keys()):
            writes += self._growth(segments[name], view.group_size(blocks_of(name)), bases, now)
        for name in sorted(namespaces - segments.keys()):
            subnet = ipam.next_subnet(self._range, self._segment_prefix, bases)
            vni = ipam.next_vni(vnis)
            if subnet is None or vni is None:
                break
            bases.add(subnet.base)
            vnis.add(vni)
            writes.append(Create(SEGMENTS, _segment(name, vni, subnet)))
        return Plan(tuple(writes), None, f"{len(namespaces)} namespaces")

    def _removal(self, view: View, segment: Object) -> list[Write]:
        name = segment["metadata"]["name"]
        if view.entries(PORTS, name):
            return []
        gone: list[Write] = [Delete(ADDRESS_BLOCKS, "", each.name, each.uid) for each in view.group(blocks_of(name))]
        return gone or [Delete(SEGMENTS, "", name, segment["metadata"]["uid"])]

    def _growth(self, segment: Object, blocks: int, bases: set[int], now: float) -> list[Write]:
        """Another subnet while there are still blocks to give; a condition when the pod range has none left."""
        subnets = [Cidr.parse(each) for each in segment["spec"]["subnets"]]
        free = sum(len(subnet.parts(self._block_prefix)) for subnet in subnets) - blocks
        fresh = ipam.next_subnet(self._range, self._segment_prefix, bases) if free < FREE_BLOCKS_MIN else None
        if fresh is not None:
            bases.add(fresh.base)
            spec = {**segment["spec"], "subnets": [*segment["spec"]["subnets"], str(fresh)]}
            return [Update(SEGMENTS, {**segment, "spec": spec})]
        full = free < FREE_BLOCKS_MIN
        status = segment.get("status") or {}
        listed = conditions.with_condition(
            status.get("conditions"),
            "Exhausted",
            "True" if full else "False",
            "NoSubnetLeft" if full else "BlocksLeft",
            f"the pod range {self._range} has no subnet left; widen network.pod_cidr" if full else "",
            now,
        )
        if listed == status.get("conditions"):
            return []
        return [UpdateStatus(SEGMENTS, {**segment, "status": {**status, "conditions": listed}})]


def _segment(namespace: str, vni: int, subnet: Cidr) -> Object:
    return {
        "apiVersion": NETWORK_API,
        "kind": "Segment",
        "metadata": {"name": namespace},
        "spec": {"vni": vni, "subnets": [str(subnet)]},
    }
