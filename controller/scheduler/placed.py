"""Pods that were created with their node: nobody schedules them, and an address is all that they lack.

Check and claim are one step: a pod is completed as it is in the cache, with all of the ports of that revision known,
and the transaction compares the pod's version. So a pod never gets two addresses, whoever dies when.

Nobody has looked whether such a pod fits either. One that wants a port of the host which another pod there has is
refused, as a kubelet does: it has failed before it began.
"""

from common.clock import Clock
from common.errors import Retryable, SphereError
from common.logs import logger
from common.tasks import KeyQueue
from controller.kinds.kind import Object
from controller.reconcilers import pods
from controller.runtime.client import Client
from controller.runtime.events import Recorder
from controller.runtime.resources import NODES, PODS, PORTS, split
from controller.runtime.runner import LiveReader
from controller.runtime.view import View
from controller.runtime.writes import MERGE_PATCH, EmitEvent
from controller.scheduler.binding import Binder
from controller.scheduler.model import host_ports_of
from controller.store.cache import Change
from controller.store.entry import Entry

REFUSAL = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
REPORTER = "kubelet"
"""In whose name a refusal is told: users look for it there."""
log = logger("scheduler")


class Placed:
    """See the module."""

    def __init__(
        self, cache: LiveReader, view: View, client: Client, binder: Binder, recorder: Recorder, clock: Clock
    ) -> None:
        self._cache = cache
        self._view = view
        self._client = client
        self._binder = binder
        self._recorder = recorder
        self._queue: KeyQueue[str] = KeyQueue(clock)
        self._owner_of: dict[str, str] = {}
        """Uid of the pod of each port, by the port's key."""
        self._addressed: set[str] = set()
        """Uids of pods that have a port."""

    async def run(self) -> None:
        """Until cancelled."""
        await self._cache.wait_synced()
        self._binder.connect()
        for resource in (PORTS, PODS):
            for entry in self._cache.list(resource):
                self._on_change(Change("ADDED", entry, None, entry.revision))
        stop = self._cache.subscribe([PODS, PORTS], self._on_change)
        try:
            await self._queue.run(self._work)
        finally:
            stop()

    def _on_change(self, change: Change) -> None:
        entry, gone = change.entry, change.type == "DELETED"
        if entry.resource == PORTS:
            self._on_port(entry, gone)
        elif not gone and entry.fields.get("spec.nodeName") and entry.uid not in self._addressed:
            self._queue.add(f"{entry.namespace}/{entry.name}")

    def _on_port(self, entry: Entry, gone: bool) -> None:
        if gone:
            self._addressed.discard(self._owner_of.pop(entry.key, ""))
        elif entry.key not in self._owner_of:
            uid = str((entry.decode().get("spec") or {}).get("podUID", ""))
            self._owner_of[entry.key] = uid
            self._addressed.add(uid)

    def _lacking(self, key: str) -> Object | None:
        """The pod, if it has a node and should have an address, but has none."""
        entry = self._cache.get(PODS, *split(key))
        if entry is None or entry.uid in self._addressed:
            return None
        pod = self._view.decode(entry)
        if not pods.node_of(pod) or pod["spec"].get("hostNetwork"):
            return None
        return None if pods.is_terminal(pod) or pods.is_deleting(pod) else entry.decode()

    async def _work(self, key: str) -> float | None:
        pod = self._lacking(key)
        if pod is None:
            return None
        node = pods.node_of(pod)
        if self._cache.get(NODES, "", node) is None:
            raise Retryable(f"there is no node {node}")
        rival = self._rival(pod)
        if rival is not None:
            await self._refuse(pod, rival)
            return None
        await self._binder.complete(pod)
        log.info("has an address now", pod=key, host=node)
        return None

    def _rival(self, pod: Object) -> Object | None:
        """A pod of the same host that has, or was there first to have, one of the host's ports that ``pod`` wants."""
        wanted = host_ports_of(pod)
        for entry in self._view.pods_on(pods.node_of(pod)) if wanted else ():
            other = self._view.decode(entry)
            if entry.uid == pod["metadata"]["uid"] or pods.is_terminal(other):
                continue
            has = entry.uid in self._addressed or other["spec"].get("hostNetwork")
            if not has and _age(other) >= _age(pod):
                continue
            if any(one.clashes(two) for one in wanted for two in host_ports_of(other)):
                return other
        return None

    async def _refuse(self, pod: Object, rival: Object) -> None:
        """The pod has failed. Raises ``Retryable`` when that could not be written."""
        meta = pod["metadata"]
        patch: Object = {
            "metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
            "status": {"phase": "Failed", "reason": "NodePorts", "message": f"Pod was rejected: {REFUSAL}"},
        }
        try:
            await self._client.patch(PODS, meta["namespace"], meta["name"], patch, MERGE_PATCH, "status")
        except SphereError as err:
            raise Retryable(f"refusal of {meta['name']} not written: {err}") from err
        self._recorder.emit(EmitEvent(pod, "Warning", "NodePorts", REFUSAL), REPORTER)
        log.info("refused", pod=meta["name"], host=pods.node_of(pod), rival=rival["metadata"]["name"])


def _age(pod: Object) -> tuple[float, str]:
    """Sorts the older pod first."""
    return pods.created_at(pod), str(pod["metadata"]["uid"])
