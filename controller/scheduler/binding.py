"""Binding: the pod's host and the pod's network port, in one etcd transaction.

Either everything is there (node name, PodScheduled, port, new block) or nothing. Creating the port's key is the claim
of its address: two binds cannot both create it, and a quarantined port still has it.
"""

import copy
import uuid

from common.clock import Clock, rfc3339
from common.errors import Retryable
from controller.api.status import conflict, not_found
from controller.kinds.kind import Object, ResourceKey
from controller.network import ipam
from controller.network.ipam import Cidr
from controller.reconcilers import conditions, pods
from controller.runtime.resources import ADDRESS_BLOCKS, NETWORK_API, NODES, PODS, PORTS, SEGMENTS
from controller.runtime.runner import LiveReader
from controller.scheduler.addresses import AddressBook, Claim
from controller.store.cache import Change
from controller.store.entry import encode, key_for
from controller.store.objects import Compare, Conflict, Delete, Put, Store

ATTEMPTS_MAX = 8


class NoAddress(Retryable):
    """The segment of the pod's namespace is missing or full; both are on their way to be mended."""


class Binder:
    """Used by the scheduler and by the API's ``pods/binding``. Call ``connect`` once the cache is in sync."""

    def __init__(self, cache: LiveReader, store: Store, clock: Clock, block_prefix: int) -> None:
        self._cache = cache
        self._store = store
        self._clock = clock
        self.book = AddressBook(block_prefix)
        self._connected = False

    def connect(self) -> None:
        """Learn what is taken and follow it. Calling it again changes nothing."""
        if self._connected:
            return
        self._connected = True
        for resource in (ADDRESS_BLOCKS, PORTS):
            for entry in self._cache.list(resource):
                self.book.on_change(Change("ADDED", entry, None, entry.revision))
        self._cache.subscribe([ADDRESS_BLOCKS, PORTS], self.book.on_change)

    async def bind(self, namespace: str, name: str, host: str, *, uid: str | None = None) -> int:
        """Bind the pod to ``host``; returns the revision.

        Raises ``ApiError`` (404 no such pod or node, 409 bound already, deleted or another uid), ``NoAddress``, or
        ``Unavailable`` when etcd is away.
        """
        await self._cache.wait_synced()
        self.connect()
        if self._cache.get(PODS, namespace, name) is None:
            # It may have been created a moment ago, through this very process.
            await self._cache.wait_revision(self._store.acknowledged)
        for _ in range(ATTEMPTS_MAX):
            pod = self._pod(namespace, name, host, uid)
            claim = None if pod["spec"].get("hostNetwork") else self._claim(namespace, host)
            try:
                return await self._write(pod, host, claim)
            except Conflict as err:
                self._give_back(claim, err)
                await self._cache.wait_revision(self._store.acknowledged)
            except BaseException:
                self._give_back(claim, None)
                raise
        raise Retryable(f"binding {namespace}/{name} lost the race {ATTEMPTS_MAX} times")

    async def complete(self, pod: Object) -> int:
        """Give a pod that was created with its node what binding would have given it; returns the revision.

        One attempt, for this very version of the pod, which must have no port yet. Raises ``Retryable`` when it has
        changed, ``NoAddress``, or ``Unavailable``.
        """
        host = pods.node_of(pod)
        claim = self._claim(pod["metadata"]["namespace"], host)
        try:
            return await self._write(pod, host, claim)
        except Conflict as err:
            self._give_back(claim, err)
            raise Retryable(f"{err.key} has changed") from err
        except BaseException:
            self._give_back(claim, None)
            raise

    def subnets(self, namespace: str) -> list[Cidr]:
        """Subnets of the namespace's segment. Raises ``NoAddress`` while there is none."""
        return [Cidr.parse(each) for each in self._segment(namespace)["spec"]["subnets"]]

    def _segment(self, namespace: str) -> Object:
        entry = self._cache.get(SEGMENTS, "", namespace)
        if entry is None:
            raise NoAddress(f"namespace {namespace} has no segment yet")
        return entry.decode()

    def _pod(self, namespace: str, name: str, host: str, uid: str | None) -> Object:
        entry = self._cache.get(PODS, namespace, name)
        if entry is None:
            raise not_found(PODS, name)
        pod = entry.decode()
        if uid is not None and uid != entry.uid:
            raise conflict(PODS, name, f"the UID in the precondition is {uid}, the pod's is {entry.uid}")
        if pods.is_deleting(pod):
            raise conflict(PODS, name, f"pod {name} is being deleted, cannot be assigned to a host")
        if pods.node_of(pod):
            raise conflict(PODS, name, f'pod {name} is already assigned to node "{pods.node_of(pod)}"')
        if self._cache.get(NODES, "", host) is None:
            raise not_found(NODES, host)
        return pod

    def _claim(self, namespace: str, host: str) -> Claim:
        claim = self.book.claim(namespace, self.subnets(namespace), host)
        if claim is None:
            raise NoAddress(f"the segment of namespace {namespace} has no free address for host {host}")
        return claim

    def _give_back(self, claim: Claim | None, err: Conflict | None) -> None:
        if claim is not None:
            lost = err.key if err is not None else ""
            self.book.give_back(
                claim,
                address_taken=f"/{PORTS.plural}/" in lost,
                block_taken=f"/{ADDRESS_BLOCKS.plural}/" in lost,
            )

    async def _write(self, pod: Object, host: str, claim: Claim | None) -> int:
        now = self._clock.now()
        meta = pod["metadata"]
        key = key_for(PODS, meta["namespace"], meta["name"])
        compares = [Compare(key, int(meta["resourceVersion"]))]
        writes: list[Put | Delete] = [Put(key, encode(bound_pod(pod, host, now)))]
        if claim is not None:
            vni = self._segment(meta["namespace"])["spec"]["vni"]
            port = port_object(pod, host, claim.address, vni, now)
            fresh: list[tuple[ResourceKey, Object]] = [(PORTS, port)]
            if claim.new_block:
                fresh.append((ADDRESS_BLOCKS, block_object(claim.block, meta["namespace"], host, now)))
            for resource, obj in fresh:
                where = key_for(resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
                compares.append(Compare(where, 0))
                writes.append(Put(where, encode(obj)))
        return await self._store.txn(compares, writes)


def bound_pod(pod: Object, host: str, now: float) -> Object:
    """The pod with its node name and the PodScheduled condition."""
    fresh = copy.deepcopy(pod)
    fresh["spec"]["nodeName"] = host
    status = fresh.setdefault("status", {})
    listed = conditions.without(status.get("conditions"), "PodScheduled")
    known = conditions.find(status.get("conditions"), "PodScheduled")
    if known is None or known.get("status") != "True":
        known = {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": rfc3339(now),
        }
    status["conditions"] = [*listed, dict(known)]
    return fresh


def _metadata(name: str, namespace: str, now: float) -> Object:
    meta: Object = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": rfc3339(now), "generation": 1}
    if namespace:
        meta["namespace"] = namespace
    return meta


def port_object(pod: Object, host: str, address: int, vni: int, now: float) -> Object:
    """The Port of a pod. It has no owner: it outlives the pod until every host has forgotten the address."""
    meta = pod["metadata"]
    return {
        "apiVersion": NETWORK_API,
        "kind": "Port",
        "metadata": _metadata(ipam.port_name(address), meta["namespace"], now),
        "spec": {
            "podName": meta["name"],
            "podUID": meta["uid"],
            "host": host,
            "address": ipam.address_text(address),
            "mac": ipam.mac_of(address),
            "vni": vni,
            "segment": meta["namespace"],
        },
        "status": {"phase": "Bound"},
    }


def block_object(block: Cidr, segment: str, host: str, now: float) -> Object:
    return {
        "apiVersion": NETWORK_API,
        "kind": "AddressBlock",
        "metadata": _metadata(ipam.block_name(block), "", now),
        "spec": {"cidr": str(block), "segment": segment, "host": host},
    }
