"""Pods that were created with their node: nobody schedules them, and an address is all that they lack.

Check and claim are one step: a pod is completed as it is in the cache, with all of the ports of that revision known,
and the transaction compares the pod's version. So a pod never gets two addresses, whoever dies when.
"""

from common.clock import Clock
from common.errors import Retryable
from common.logs import logger
from common.tasks import KeyQueue
from controller.kinds.kind import Object
from controller.reconcilers import pods
from controller.runtime.resources import NODES, PODS, PORTS, split
from controller.runtime.runner import LiveReader
from controller.runtime.view import View
from controller.scheduler.binding import Binder
from controller.store.cache import Change
from controller.store.entry import Entry

log = logger("scheduler")


class Placed:
    """See the module."""

    def __init__(self, cache: LiveReader, view: View, binder: Binder, clock: Clock) -> None:
        self._cache = cache
        self._view = view
        self._binder = binder
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
        await self._binder.complete(pod)
        log.info("has an address now", pod=key, host=node)
        return None
