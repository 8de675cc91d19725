"""Nodes without hosts: registers Node objects, reports pods bound to them ready, and finishes their deletion."""

import asyncio

from common.clock import rfc3339
from common.tasks import KeyQueue
from controller.api.status import ApiError
from controller.kinds.kind import Object
from controller.runtime.resources import NODES, PODS
from controller.store.cache import Cache, Change
from tests.integration.conftest import ApiServer


def node_object(name: str, now: float, cpu: str = "4") -> Object:
    """A ready node of 110 pods."""
    resources = {"cpu": cpu, "memory": "8Gi", "ephemeral-storage": "20Gi", "pods": "110"}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "",
        "lastHeartbeatTime": rfc3339(now),
        "lastTransitionTime": rfc3339(now),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"capacity": resources, "allocatable": resources, "conditions": [ready]},
    }


class HollowHosts:
    """Plays every spherelet at once. ``hold`` keeps pods of an image from becoming ready.

    Pods of an image in ``ends`` end at once, in the phase given there.
    """

    def __init__(self, server: ApiServer) -> None:
        self._client = server.local
        self._cache: Cache = server.api.ports.cache
        self._clock = server.api.ports.clock
        self._queue: KeyQueue[tuple[str, str]] = KeyQueue(self._clock)
        self.hold: set[str] = set()
        self.ends: dict[str, str] = {}

    async def register(self, *names: str, cpu: str = "4") -> None:
        for name in names:
            made = await self._client.create(NODES, node_object(name, self._clock.now(), cpu))
            status = node_object(name, self._clock.now(), cpu)["status"]
            await self._client.update_status(NODES, {**made, "status": status})

    def look_again(self) -> None:
        """Report pods that were held and are not any more."""
        for entry in self._cache.list(PODS):
            self._queue.add((entry.namespace, entry.name))

    async def run(self) -> None:
        def on_change(change: Change) -> None:
            self._queue.add((change.entry.namespace, change.entry.name))

        stop = self._cache.subscribe([PODS], on_change)
        try:
            await self._queue.run(self._one)
        finally:
            stop()

    async def _one(self, key: tuple[str, str]) -> float | None:
        entry = self._cache.get(PODS, *key)
        pod = entry.decode() if entry is not None else None
        if entry is None or pod is None or not pod["spec"].get("nodeName"):
            return None
        try:
            if entry.deleting:
                await self._client.delete(PODS, *key, uid=entry.uid, grace_s=0)
            elif pod["spec"]["containers"][0]["image"] not in self.hold:
                await self._report(pod)
        except ApiError:
            await asyncio.sleep(0.01)
            return 0.05
        return None

    async def _report(self, pod: Object) -> None:
        status = pod.get("status") or {}
        end = self.ends.get(pod["spec"]["containers"][0]["image"])
        if status.get("phase") in ("Running", end):
            return
        stamp = rfc3339(self._clock.now())
        kept = [c for c in status.get("conditions") or () if c["type"] not in ("Ready", "ContainersReady")]
        ready = [{"type": t, "status": "True", "lastTransitionTime": stamp} for t in ("Ready", "ContainersReady")]
        index = abs(hash(pod["metadata"]["uid"])) % 65000
        address = f"10.65.{index // 256}.{index % 256}"
        fresh = {**status, "phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        fresh["conditions"] = [*kept, *ready]
        if end is not None:
            fresh |= {"phase": end, "conditions": kept}
        await self._client.update_status(PODS, {**pod, "status": fresh})
