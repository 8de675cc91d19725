"""The scheduler's loop: pending pods by priority -> choose (pure) -> assume -> bind (one transaction).

A pod that fits nowhere waits until something changes that could help (a node, a finished pod, an address), at the
earliest after its backoff, so that neither a full cluster nor a flapping node makes a hot loop.
"""

import asyncio
from dataclasses import dataclass, field

from common.clock import Clock
from common.errors import Retryable, SphereError, Terminal
from common.logs import logger
from common.tasks import Wake, backoff_s
from controller.api.status import ApiError, is_conflict, is_not_found
from controller.kinds.kind import Object
from controller.reconcilers import conditions, pods
from controller.runtime.client import Client
from controller.runtime.events import Recorder
from controller.runtime.metrics import ControllerMetrics
from controller.runtime.resources import NODES, PODS, SEGMENTS
from controller.runtime.runner import LiveReader
from controller.runtime.view import View
from controller.runtime.writes import MERGE_PATCH, EmitEvent
from controller.scheduler.binding import Binder, NoAddress
from controller.scheduler.choose import Unschedulable, choose
from controller.scheduler.model import PodNeeds, needs_of
from controller.scheduler.snapshot import Snapshot
from controller.store.cache import Change

NAME = "default-scheduler"
BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 10.0
FLUSH_S = 300.0
"""An unschedulable pod is tried again at least this often, in case an event that would help was not thought of."""
BINDS_MAX = 32
log = logger("scheduler")


@dataclass(slots=True)
class Waiting:
    """A pod without a node."""

    needs: PodNeeds
    failures: int = 0
    not_before: float = 0.0
    parked: bool = False
    """Waits for a change that could help."""
    binding: bool = field(default=False)


class Scheduler:
    """See the module."""

    def __init__(
        self,
        cache: LiveReader,
        view: View,
        client: Client,
        binder: Binder,
        recorder: Recorder,
        clock: Clock,
        metrics: ControllerMetrics,
    ) -> None:
        self._metrics = metrics
        self._cache = cache
        self._view = view
        self._client = client
        self._binder = binder
        self._recorder = recorder
        self._clock = clock
        self._snapshot = Snapshot()
        self._waiting: dict[str, Waiting] = {}
        self._wake = Wake()
        self._slots = asyncio.Semaphore(BINDS_MAX)

    async def run(self) -> None:
        """Schedule until cancelled."""
        await self._cache.wait_synced()
        self._binder.connect()
        for resource in (NODES, PODS):
            for entry in self._cache.list(resource):
                self._on_change(Change("ADDED", entry, None, entry.revision))
        stop = self._cache.subscribe([NODES, PODS, SEGMENTS], self._on_change)
        self._metrics.pending_pods.set_function(lambda: float(len(self._waiting)))
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    delay_s = await self._pass(group)
                    await self._wake.wait(delay_s)
        finally:
            stop()

    def statistics(self) -> dict[str, int]:
        return {"waiting": len(self._waiting), "parked": sum(each.parked for each in self._waiting.values())}

    # Events: memory only

    def _on_change(self, change: Change) -> None:
        try:
            if change.entry.resource == NODES:
                self._on_node(change)
            elif change.entry.resource == PODS:
                self._on_pod(change)
            else:
                self._unpark()
        except (Terminal, ValueError, KeyError, TypeError) as err:
            # One odd object must not stop the cache for all the others.
            log.error("ignored by the scheduler", object=change.entry.key, reason=str(err))

    def _on_node(self, change: Change) -> None:
        if change.type == "DELETED":
            self._snapshot.drop_node(change.entry.name)
        elif self._snapshot.put_node(self._view.decode(change.entry)):
            self._unpark()

    def _on_pod(self, change: Change) -> None:
        uid = change.entry.uid
        if change.type == "DELETED":
            self._snapshot.drop_pod(uid)
            self._waiting.pop(uid, None)
            self._unpark()
            return
        pod = self._view.decode(change.entry)
        if pods.node_of(pod):
            self._waiting.pop(uid, None)
            self._snapshot.put_pod(pod)
            if pods.is_terminal(pod):
                self._unpark()
        elif not _is_ours(pod):
            self._waiting.pop(uid, None)
        elif uid in self._waiting:
            known = self._waiting[uid]
            fresh = needs_of(pod)
            if fresh != known.needs:
                known.needs, known.parked = fresh, False
                self._wake.set()
        else:
            self._waiting[uid] = Waiting(needs_of(pod))
            self._wake.set()

    def _unpark(self) -> None:
        woken = False
        for each in self._waiting.values():
            if each.parked:
                each.parked, woken = False, True
        if woken:
            self._wake.set()

    # Decisions

    async def _pass(self, group: asyncio.TaskGroup) -> float | None:
        """Try every pod whose turn it is; returns the seconds until the next one's."""
        now = self._clock.monotonic()
        due = [each for each in self._waiting.values() if not each.binding and _due_at(each) <= now]
        due.sort(key=lambda each: (-each.needs.priority, each.needs.created, each.needs.key))
        for each in due:
            if each.needs.uid in self._waiting and not each.binding:
                await self._attempt(each, group)
        times = [_due_at(each) for each in self._waiting.values() if not each.binding]
        return max(0.0, min(times) - self._clock.monotonic()) if times else None

    async def _attempt(self, each: Waiting, group: asyncio.TaskGroup) -> None:
        with self._metrics.schedule_seconds.time():
            nodes = self._snapshot.nodes()
            decision = choose(each.needs, nodes, seed=each.failures, without_address=self._without_address(each.needs))
        if isinstance(decision, Unschedulable):
            self._metrics.schedule_attempts.labels("unschedulable").inc()
            await self._give_up(each, decision.message)
            return
        each.binding = True
        self._snapshot.assume(each.needs, decision.node)
        await self._slots.acquire()
        group.create_task(self._bind(each, decision.node))

    def _without_address(self, pod: PodNeeds) -> frozenset[str]:
        if pod.host_network:
            return frozenset()
        try:
            subnets = self._binder.subnets(pod.namespace)
        except NoAddress:
            return frozenset()
        if self._binder.book.has_free_block(subnets):
            return frozenset()
        names = (node.name for node in self._snapshot.nodes())
        return frozenset(name for name in names if self._binder.book.exhausted(pod.namespace, subnets, name))

    async def _bind(self, each: Waiting, node: str) -> None:
        pod = each.needs
        try:
            await self._binder.bind(pod.namespace, pod.name, node, uid=pod.uid)
        except (ApiError, Retryable) as err:
            self._snapshot.drop_pod(pod.uid)
            each.binding = False
            # Deleted or bound by another meanwhile: the cache's event settles it.
            self._metrics.schedule_attempts.labels("error").inc()
            self._back_off(each, parked=isinstance(err, NoAddress))
            if not (is_conflict(err) or is_not_found(err)):
                log.info("not bound", pod=pod.key, host=node, reason=str(err))
        else:
            self._metrics.schedule_attempts.labels("scheduled").inc()
            self._waiting.pop(pod.uid, None)
            text = f"Successfully assigned {pod.key} to {node}"
            self._emit(pod, "Normal", "Scheduled", text)
            log.info("bound", pod=pod.key, host=node)
        finally:
            self._slots.release()
            self._wake.set()

    async def _give_up(self, each: Waiting, message: str) -> None:
        """Park the pod, and tell its owner why: condition and event."""
        self._back_off(each, parked=True)
        pod = each.needs
        entry = self._cache.get(PODS, pod.namespace, pod.name)
        if entry is None or entry.uid != pod.uid:
            return
        self._emit(pod, "Warning", "FailedScheduling", message)
        status = self._view.decode(entry).get("status") or {}
        listed = conditions.with_condition(
            status.get("conditions"), "PodScheduled", "False", "Unschedulable", message, self._clock.now()
        )
        if listed == status.get("conditions"):
            return
        patch: Object = {"metadata": {"uid": pod.uid}, "status": {"conditions": listed}}
        patch["metadata"]["resourceVersion"] = str(entry.revision)
        try:
            await self._client.patch(PODS, pod.namespace, pod.name, patch, MERGE_PATCH, "status")
        except SphereError as err:
            log.info("condition not written", pod=pod.key, reason=str(err))

    def _back_off(self, each: Waiting, *, parked: bool) -> None:
        each.failures += 1
        delay_s = backoff_s(each.failures, base_s=BACKOFF_BASE_S, cap_s=BACKOFF_CAP_S)
        each.not_before = self._clock.monotonic() + delay_s
        each.parked = parked

    def _emit(self, pod: PodNeeds, kind: str, reason: str, message: str) -> None:
        about: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        }
        self._recorder.emit(EmitEvent(about, kind, reason, message), NAME)


def _due_at(each: Waiting) -> float:
    return each.not_before + (FLUSH_S if each.parked else 0.0)


def _is_ours(pod: Object) -> bool:
    spec = pod["spec"]
    return (
        spec.get("schedulerName", NAME) == NAME
        and not spec.get("schedulingGates")
        and not pods.is_deleting(pod)
        and not pods.is_terminal(pod)
    )
