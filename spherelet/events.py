"""Events of pods: told here at once, written to the API later, aggregated; never in the way of a pod."""

import asyncio
import hashlib
from typing import Any

from common.clock import Clock, rfc3339
from common.errors import SphereError
from common.kube import KubeClient
from common.logs import logger
from common.tasks import Wake
from spherelet.model import PodView, Role

DELAY_S = 0.5
"""Nobody waits for an event, but pods that start do wait for the API."""
PENDING_MAX = 1000
KNOWN_MAX = 4000
_FIELDS = {
    Role.INIT: "initContainers",
    Role.SIDECAR: "initContainers",
    Role.MAIN: "containers",
    Role.EPHEMERAL: "ephemeralContainers",
}
"""Where in a pod's spec containers of a role are."""

log = logger("events")


class Events:
    """A bounded box of events that wait to be written, one per (pod, container, reason, message)."""

    def __init__(self, kube: KubeClient, host: str, clock: Clock) -> None:
        self._kube = kube
        self._host = host
        self._clock = clock
        self._pending: dict[str, dict[str, Any]] = {}
        self._written: dict[str, dict[str, Any]] = {}
        """What the API has, by identity; told again, it is counted up there."""
        self._wake = Wake()

    def tell(self, pod: PodView, reason: str, message: str, *, container: str = "", warning: bool = False) -> None:
        """Remember an event about ``pod`` (or one of its containers). Never blocks; drops the oldest when full."""
        if not pod.namespace:
            return
        found = pod.container(container) if container else None
        path = f"spec.{_FIELDS[found.role]}{{{container}}}" if found is not None and found.role in _FIELDS else ""
        identity = hashlib.sha256(f"{pod.uid}\0{path}\0{reason}\0{message}".encode()).hexdigest()[:16]
        time = self._clock.now()
        now = rfc3339(time)
        known = self._pending.get(identity) or self._written.get(identity)
        if known is None:
            # The time in the name keeps lists in order: clients sort by whole seconds.
            name = f"{pod.name[:230]}.{int(time * 1e9):x}"
            known = self._new(pod, name, path, reason, message, warning=warning, now=now)
        else:
            known["count"] += 1
        known["lastTimestamp"] = now
        self._pending[identity] = known
        while len(self._pending) > PENDING_MAX:
            self._pending.pop(next(iter(self._pending)))
        self._wake.set()

    async def run(self) -> None:
        """Write events until cancelled; what the API refuses is dropped, what it cannot take now is tried again."""
        while True:
            await self._wake.wait()
            await self._clock.sleep(DELAY_S)
            while self._pending:
                identity, event = next(iter(self._pending.items()))
                said = event["count"]
                try:
                    await self._write(event, new=identity not in self._written)
                except SphereError as err:
                    log.info("event not written", reason=str(err))
                    if not getattr(err, "final", False):
                        await asyncio.sleep(1.0)
                        continue
                if self._pending.get(identity) is event and event["count"] == said:
                    del self._pending[identity]
                self._written.pop(identity, None)  # to the end: the oldest are forgotten first
                self._written[identity] = event
                while len(self._written) > KNOWN_MAX:
                    self._written.pop(next(iter(self._written)))

    async def _write(self, event: dict[str, Any], *, new: bool) -> None:
        namespace, name = event["metadata"]["namespace"], event["metadata"]["name"]
        path = f"/api/v1/namespaces/{namespace}/events"
        if new:
            await self._kube.create(path, event)
            return
        change = {"count": event["count"], "lastTimestamp": event["lastTimestamp"]}
        try:
            await self._kube.patch(f"{path}/{name}", change, "application/merge-patch+json")
        except SphereError as err:
            if getattr(err, "code", 0) != 404:
                raise
            await self._kube.create(path, event)

    def _new(
        self, pod: PodView, name: str, path: str, reason: str, message: str, *, warning: bool, now: str
    ) -> dict[str, Any]:
        about = {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "resourceVersion": str(pod.metadata.get("resourceVersion", "")),
        }
        if path:
            about["fieldPath"] = path
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": pod.namespace},
            "involvedObject": about,
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "source": {"component": "kubelet", "host": self._host},
            "reportingComponent": "kubelet",
            "reportingInstance": self._host,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
