"""The scheduler's loop: pending pods by priority -> choose (pure) -> assume -> bind (one transaction).

A pod that fits nowhere waits until something changes. If it now fits on a node that has changed, it is tried at once;
if the change only might help (another pod came that it wishes to be near), after its backoff. So neither a full
cluster nor a flapping node makes a hot loop.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from common.clock import Clock
from common.errors import Retryable, SphereError, Terminal
from common.logs import logger
from common.selectors import from_label_selector
from common.tasks import Wake, backoff_s
from controller.api.status import ApiError, is_conflict, is_not_found
from controller.kinds import claims
from controller.kinds.kind import Object
from controller.reconcilers import conditions, pods
from controller.runtime.client import Client
from controller.runtime.events import Recorder
from controller.runtime.metrics import ControllerMetrics
from controller.runtime.resources import (
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    PORTS,
    SEGMENTS,
    STORAGE_CLASSES,
)
from controller.runtime.runner import LiveReader
from controller.runtime.view import View
from controller.runtime.writes import MERGE_PATCH, EmitEvent
from controller.scheduler import filters, volumes
from controller.scheduler.binding import Binder, NoAddress
from controller.scheduler.choose import Placed, Unschedulable, choose
from controller.scheduler.model import BoundPod, NodeState, PodNeeds, needs_of
from controller.scheduler.neighbours import Neighbours
from controller.scheduler.preempt import Budget, Helpless, Preemption, preempt
from controller.scheduler.snapshot import Snapshot
from controller.scheduler.volumes import PodVolumes
from controller.store.cache import Change

NAME = "default-scheduler"
BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 10.0
FLUSH_S = 300.0
"""An unschedulable pod is tried again at least this often, in case an event that would help was not thought of."""
BINDS_MAX = 32
_STORAGE = (PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES)
log = logger("scheduler")


@dataclass(slots=True)
class Waiting:
    """A pod without a node."""

    needs: PodNeeds
    failures: int = 0
    not_before: float = 0.0
    parked: bool = False
    """Waits for a change that could help."""
    binding: bool = False
    lacks_address: bool = False
    """An address of the namespace's segment would help."""
    lacks_volume: bool = False
    """A change of claims or volumes would help."""
    assumed: str = ""
    """The node where its claims are being bound: for all others it is there already."""
    nominated: str = ""
    """The node where pods were pushed away for this one; what they leave is kept for it."""
    victims: set[str] = field(default_factory=set)
    """Their uids."""


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
        self._touched: set[str] = set()
        """Nodes that have room or traits which they did not have at the last pass."""
        self._pods_moved = False
        """Pods came, went or changed labels since then."""
        self._reserving: list[Waiting] = []
        """Those for whom room is kept on a node."""
        self._wake = Wake()
        self._slots = asyncio.Semaphore(BINDS_MAX)

    async def run(self) -> None:
        """Schedule until cancelled."""
        await self._cache.wait_synced()
        self._binder.connect()
        for resource in (NODES, PODS):
            for entry in self._cache.list(resource):
                self._on_change(Change("ADDED", entry, None, entry.revision))
        stop = self._cache.subscribe([NODES, PODS, SEGMENTS, PORTS, NAMESPACES, *_STORAGE], self._on_change)
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
            resource = change.entry.resource
            if resource == NODES:
                self._on_node(change)
            elif resource == PODS:
                self._on_pod(change)
            elif resource == NAMESPACES:
                self._pods_moved = True
            elif resource == SEGMENTS:
                self._address_came(change.entry.name)
            elif resource in _STORAGE:
                self._on_storage(change)
            elif change.type == "DELETED":
                self._address_came(change.entry.namespace)
        except (Terminal, ValueError, KeyError, TypeError) as err:
            # One odd object must not stop the cache for all the others.
            log.error("ignored by the scheduler", object=change.entry.key, reason=str(err))

    def _on_node(self, change: Change) -> None:
        if change.type == "DELETED":
            self._snapshot.drop_node(change.entry.name)
            self._pods_moved = True
        elif self._snapshot.put_node(self._view.decode(change.entry)):
            self._touch(change.entry.name)

    def _on_pod(self, change: Change) -> None:
        uid = change.entry.uid
        if change.type == "DELETED":
            self._leave(uid, change.entry.fields.get("spec.nodeName", ""))
            return
        pod = self._view.decode(change.entry)
        node = pods.node_of(pod)
        if node:
            self._waiting.pop(uid, None)
            if pods.is_terminal(pod):
                self._leave(uid, node)
            elif self._snapshot.put_pod(pod):
                self._pods_moved = True
                self._wake.set()
        elif not _is_ours(pod):
            self._waiting.pop(uid, None)
        elif uid in self._waiting:
            known = self._waiting[uid]
            fresh = needs_of(pod)
            if fresh != known.needs:
                known.needs, known.parked = fresh, False
                self._wake.set()
        else:
            nominated = (pod.get("status") or {}).get("nominatedNodeName") or ""
            self._waiting[uid] = Waiting(needs_of(pod), nominated=nominated)
            self._wake.set()

    def _leave(self, uid: str, node: str) -> None:
        """The pod takes nothing any more."""
        self._snapshot.drop_pod(uid)
        waited = self._waiting.pop(uid, None)
        node = node or ((waited.assumed or waited.nominated) if waited is not None else "")
        if node:
            self._touch(node)

    def _touch(self, node: str) -> None:
        self._touched.add(node)
        self._pods_moved = True
        self._wake.set()

    def _address_came(self, namespace: str) -> None:
        for each in self._waiting.values():
            if each.lacks_address and each.needs.namespace == namespace:
                each.parked, each.lacks_address, each.not_before = False, False, 0.0
                self._wake.set()

    def _on_storage(self, change: Change) -> None:
        """Pods that use a claim which has changed are tried at once; those that lack any volume after their backoff."""
        if change.entry.resource == PERSISTENT_VOLUME_CLAIMS:
            for uid in volumes.users_of(self._view, change.entry.namespace, change.entry.name):
                if uid in self._waiting:
                    self._waiting[uid].parked, self._waiting[uid].not_before = False, 0.0
        else:
            for each in self._waiting.values():
                each.parked = each.parked and not each.lacks_volume
        self._wake.set()

    def _unpark(self, now: float) -> None:
        """Wake those whom the changes since the last pass help, or may help."""
        states = [state for name in sorted(self._touched) if (state := self._snapshot.state(name)) is not None]
        for each in self._waiting.values():
            if not each.parked or each.assumed:
                continue  # has a node: only its claims are waited for
            helped = any(not filters.against(each.needs, state) for state in states)
            lacks_more = each.lacks_address or each.lacks_volume
            if helped and not each.needs.closeness and not lacks_more:
                each.parked, each.not_before = False, min(each.not_before, now)
            elif helped or (self._pods_moved and each.needs.closeness):
                each.parked = False
        self._touched.clear()
        self._pods_moved = False

    # Decisions

    async def _pass(self, group: asyncio.TaskGroup) -> float | None:
        """Try every pod whose turn it is; returns the seconds until the next one's."""
        now = self._clock.monotonic()
        self._unpark(now)
        due = [each for each in self._waiting.values() if not each.binding and _due_at(each) <= now]
        self._reserving = [each for each in self._waiting.values() if each.nominated]
        due.sort(key=lambda each: (-each.needs.priority, each.needs.created, each.needs.key))
        for each in due:
            if each.needs.uid in self._waiting and not each.binding:
                await self._attempt(each, group)
        times = [_due_at(each) for each in self._waiting.values() if not each.binding]
        return max(0.0, min(times) - self._clock.monotonic()) if times else None

    async def _attempt(self, each: Waiting, group: asyncio.TaskGroup) -> None:
        pod = each.needs
        with self._metrics.schedule_seconds.time():
            found = volumes.look(self._view, pod, self._snapshot.nodes())
            each.lacks_volume = bool(found.blocked or found.under_way or found.against or found.unbound)
            if found.under_way:
                each.parked, each.not_before = True, self._clock.monotonic()
                return
            if each.assumed:
                self._snapshot.drop_pod(pod.uid)
                self._touch(each.assumed)
                each.assumed = ""
            nodes = self._nodes_for(each)
            snapshot = self._snapshot
            neighbours = Neighbours(pod, nodes, snapshot.bound(), snapshot.repelling(), self._namespace_labels)
            without = self._without_address(pod)
            decision = choose(pod, nodes, each.failures, neighbours, without, found.against)
            if found.selected and isinstance(decision, Placed):
                # Decided before: it stays at that as long as it can.
                there = [node for node in nodes if node.name == found.selected]
                again = choose(pod, there, each.failures, neighbours, without, found.against)
                decision = again if isinstance(again, Placed) else decision
        if found.blocked:
            self._metrics.schedule_attempts.labels("unschedulable").inc()
            self._back_off(each, parked=True)
            each.nominated, each.victims = "", set()
            await self._give_up(each, _blocked(found.blocked, len(nodes)))
            return
        if isinstance(decision, Unschedulable):
            self._metrics.schedule_attempts.labels("unschedulable").inc()
            each.lacks_address = bool(without)
            self._back_off(each, parked=True)
            if self._is_making_room(each):
                return
            answer = self._make_room(each, nodes, neighbours, found)
            if isinstance(answer, Preemption):
                each.nominated, each.victims = answer.node, {victim.uid for victim in answer.victims}
                self._reserving.append(each)
                group.create_task(self._push_away(each, answer))
            else:
                each.nominated, each.victims = "", set()
            await self._give_up(each, f"{decision.message} {_told(answer, len(nodes))}".rstrip())
            return
        each.binding = True
        self._snapshot.assume(each.needs, decision.node)
        if found.unbound:
            each.parked, each.not_before, each.assumed = True, self._clock.monotonic(), decision.node
            await self._slots.acquire()
            group.create_task(self._select(each, found.lacking(decision.node), decision.node))
            return
        await self._slots.acquire()
        group.create_task(self._bind(each, decision.node))

    def _nodes_for(self, each: Waiting) -> list[NodeState]:
        """All nodes; what was made free for pods that are at least as important counts as taken."""
        reserved = [
            other
            for other in self._reserving
            if other is not each and other.needs.priority >= each.needs.priority and not other.binding
        ]
        nodes = self._snapshot.nodes()
        if not reserved:
            return nodes
        return [_with_reserved(node, [r.needs for r in reserved if r.nominated == node.name]) for node in nodes]

    def _namespace_labels(self, name: str) -> Mapping[str, str] | None:
        entry = self._cache.get(NAMESPACES, "", name)
        return None if entry is None else entry.labels

    def _is_making_room(self, each: Waiting) -> bool:
        """Pods that it has pushed away are still on their way out."""
        bound = self._snapshot.bound_to(each.nominated) if each.nominated else ()
        return any(
            other.uid in each.victims or (other.deleting and other.priority < each.needs.priority) for other in bound
        )

    def _make_room(
        self, each: Waiting, nodes: Sequence[NodeState], neighbours: Neighbours, found: PodVolumes
    ) -> Preemption | Helpless | str:
        """Whom to push away, or why nobody is: a text when it is not even tried."""
        if not each.needs.preempts:
            return "preemption: not eligible due to preemptionPolicy=Never."
        bound = {node.name: self._snapshot.bound_to(node.name) for node in nodes}
        budgets = [
            Budget(
                budget["metadata"]["namespace"],
                from_label_selector(budget["spec"].get("selector")),
                int((budget.get("status") or {}).get("disruptionsAllowed", 0)),
            )
            for budget in self._view.objects(POD_DISRUPTION_BUDGETS)
        ]
        return preempt(each.needs, nodes, bound, neighbours, budgets, found.against)

    async def _push_away(self, each: Waiting, answer: Preemption) -> None:
        """Delete the victims, in the words that their owners look for."""
        for victim in answer.victims:
            text = f"Preempted by pod {each.needs.uid} on node {answer.node}"
            try:
                await self._mark_preempted(victim)
                await self._client.delete(PODS, victim.namespace, victim.name, uid=victim.uid)
            except SphereError as err:
                each.victims.discard(victim.uid)
                log.info("not preempted", pod=f"{victim.namespace}/{victim.name}", reason=str(err))
                continue
            self._emit(victim, "Normal", "Preempted", text)
            log.info("preempted", pod=f"{victim.namespace}/{victim.name}", by=each.needs.key, host=answer.node)

    async def _mark_preempted(self, victim: BoundPod) -> None:
        entry = self._cache.get(PODS, victim.namespace, victim.name)
        if entry is None or entry.uid != victim.uid:
            return
        text = f"{NAME}: preempting to accommodate a higher priority pod"
        status = self._view.decode(entry).get("status") or {}
        listed = conditions.with_condition(
            status.get("conditions"), "DisruptionTarget", "True", "PreemptionByScheduler", text, self._clock.now()
        )
        patch: Object = {"metadata": {"uid": victim.uid}, "status": {"conditions": listed}}
        patch["metadata"]["resourceVersion"] = str(entry.revision)
        await self._client.patch(PODS, victim.namespace, victim.name, patch, MERGE_PATCH, "status")

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

    async def _select(self, each: Waiting, lacking: Sequence[Object], node: str) -> None:
        """Write the node on claims that wait for it; when they have got volumes there, their change wakes the pod."""
        try:
            for claim in lacking:
                meta = claim["metadata"]
                metadata = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
                patch = {"metadata": {**metadata, "annotations": {claims.SELECTED_NODE: node}}}
                where = (PERSISTENT_VOLUME_CLAIMS, meta["namespace"], meta["name"])
                await self._client.patch(*where, patch, MERGE_PATCH, "")
        except (ApiError, Retryable) as err:
            self._back_off(each, parked=False)
            if not (is_conflict(err) or is_not_found(err)):
                log.info("node not selected", pod=each.needs.key, host=node, reason=str(err))
        finally:
            each.binding = False
            self._slots.release()
            self._wake.set()

    async def _bind(self, each: Waiting, node: str) -> None:
        pod = each.needs
        try:
            await self._binder.bind(pod.namespace, pod.name, node, uid=pod.uid)
        except (ApiError, Retryable) as err:
            self._snapshot.drop_pod(pod.uid)
            each.binding = False
            # Deleted or bound by another meanwhile: the cache's event settles it.
            self._metrics.schedule_attempts.labels("error").inc()
            self._touch(node)
            each.lacks_address = isinstance(err, NoAddress)
            self._back_off(each, parked=each.lacks_address)
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
        """Tell the pod's owner why it waits: condition and event."""
        pod = each.needs
        entry = self._cache.get(PODS, pod.namespace, pod.name)
        if entry is None or entry.uid != pod.uid:
            return
        self._emit(pod, "Warning", "FailedScheduling", message)
        status = self._view.decode(entry).get("status") or {}
        listed = conditions.with_condition(
            status.get("conditions"), "PodScheduled", "False", "Unschedulable", message, self._clock.now()
        )
        if listed == status.get("conditions") and each.nominated == (status.get("nominatedNodeName") or ""):
            return
        patch: Object = {"metadata": {"uid": pod.uid}, "status": {"conditions": listed}}
        patch["status"]["nominatedNodeName"] = each.nominated or None
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

    def _emit(self, pod: PodNeeds | BoundPod, kind: str, reason: str, message: str) -> None:
        about: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        }
        self._recorder.emit(EmitEvent(about, kind, reason, message), NAME)


def _with_reserved(node: NodeState, others: Sequence[PodNeeds]) -> NodeState:
    if not others:
        return node
    requested = dict(node.requested)
    for other in others:
        for name, amount in other.requests.items():
            requested[name] = requested.get(name, 0) + amount
    ports = tuple(port for other in others for port in other.host_ports)
    return replace(node, requested=requested, host_ports=(*node.host_ports, *ports))


def _blocked(why: str, nodes: int) -> str:
    """What is told of a pod that no node can take, whoever were pushed away."""
    if not nodes:
        return filters.explain((), 0)
    helpless = Helpless(("Preemption is not helpful for scheduling",) * nodes)
    return f"0/{nodes} nodes are available: {why}. {_told(helpless, nodes)}"


def _told(answer: Preemption | Helpless | str, nodes: int) -> str:
    """What is said of preemption after the reasons."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, Preemption) or not nodes:
        return ""
    return f"preemption: {filters.explain(((reason,) for reason in answer.reasons), nodes)}"


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
