"""The loop: observe -> plan -> apply -> report, one serial worker per pod.

::

    watch ----> Desired --+                          +--> apply (a task per action) --+
    pidfds ---> Runtime --+-> dirty(uid) -> _plan ---+                                +-> dirty(uid)
    probes ---> record ---+                          +--> reports.add(uid) -> _report -> PATCH, DELETE
    audit ----------------+

Planning never waits for the API, so that pods are kept running while it is away.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, replace

from common.clock import Clock
from common.errors import Retryable
from common.kube import KubeClient, KubeError
from common.logs import logger
from common.tasks import KeyQueue
from spherelet import lifecycle, metrics, report, termination
from spherelet.apply import apply
from spherelet.config import audit_period_s, workers_max
from spherelet.containers import begin
from spherelet.desired import Desired
from spherelet.images.collector import Needed
from spherelet.lifecycle import Stage
from spherelet.model import PAUSE, Action, ContainerState, Failure, Object, PodView, Wait
from spherelet.observed import Record, snapshot
from spherelet.plan import plan
from spherelet.ports import Ports
from spherelet.volumes.images import PREFIX as VOLUME_PREFIX
from spherelet.volumes.images import image_of, pulled

COALESCE_S = 0.5
"""A status that says nothing urgent waits this long for the next change."""

log = logger("loop")


@dataclass(slots=True)
class Loop:
    """Runs every pod of this host."""

    records: dict[str, Record]
    desired: Desired
    kube: KubeClient
    clock: Clock
    host_address: str
    plans: KeyQueue[str]
    reports: KeyQueue[str]
    ports: Ports
    group: asyncio.TaskGroup

    @staticmethod
    def queues(clock: Clock) -> tuple[KeyQueue[str], KeyQueue[str]]:
        """Queues of pods to plan and pods to report."""
        return KeyQueue(clock, workers_max), KeyQueue(clock, workers_max)

    async def run(self) -> None:
        """Run until cancelled: takes up what was adopted, then follows the API."""
        for record in self.records.values():
            for attempts in self.ports.runtime.attempts(record.uid).values():
                if attempts and attempts[-1].running:
                    begin(record, attempts[-1], self.ports)
            self.plans.add(record.uid)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.plans.run(self._plan))
            group.create_task(self.reports.run(self._report))
            group.create_task(self.desired.run(self.kube))
            group.create_task(self._audit())

    def launch(self, record: Record, key: str, work: Awaitable[None]) -> None:
        """Run ``work`` for a pod as a task; ``key`` is busy until it has ended."""
        record.busy[key] = self.group.create_task(self._busy(record, key, work))

    async def _busy(self, record: Record, key: str, work: Awaitable[None]) -> None:
        try:
            await work
        finally:
            record.busy.pop(key, None)
            self.plans.add(record.uid)

    def retry(self, uid: str) -> None:
        """Something that the pod refers to has changed: what failed for want of it is tried at once."""
        record = self.records.get(uid)
        if record is None:
            return
        now = self.clock.now()
        if record.volumes_failure is not None:
            record.volumes_failure = replace(record.volumes_failure, retry_at=now)
        record.retry_configuration(now)
        self.plans.add(uid)

    # --- plan

    async def _plan(self, uid: str) -> float | None:
        record = self.records.get(uid)
        if record is None:
            return None
        if not record.view.namespace and not self.desired.in_sync:
            return None  # its pod.json was lost: only the API can say what it is
        want = record.view if record.wanted else None
        if want is not None and not record.on_disk and not want.deleting:
            try:
                record.save_pod()
            except OSError as err:
                raise Retryable(f"cannot remember pod {record.view.key}: {err}") from err
        seen = snapshot(record, self.ports.runtime)
        again_s: float | None = None
        for action in plan(want, seen, self.clock.now()):
            if isinstance(action, Wait):
                again_s = action.seconds
            else:
                self._start(record, action)
        if want is None and not record.on_disk and not record.busy:
            self.records.pop(uid, None)
            return None
        self.reports.add(uid)
        return again_s

    def _start(self, record: Record, action: Action) -> None:
        log.debug("action", pod=record.view.key, uid=record.uid, object=action.key)
        self.launch(record, action.key, apply(action, record, self.ports))

    # --- report

    async def _report(self, uid: str) -> float | None:
        record = self.records.get(uid)
        if record is None or not record.wanted or not self.desired.in_sync:
            return None
        seen = snapshot(record, self.ports.runtime)
        now = self.clock.now()
        want = _with_status(record)
        for attempts in seen.containers.values():
            for each in attempts:
                if each.exit is not None and each.id not in record.messages:
                    record.messages[each.id] = termination.message(want, each)
        around = report.Surroundings(self.host_address, record.seen_at or now, now, record.messages)
        body = report.status(want, seen, around)
        final = want.deleting and lifecycle.stage(want, seen, now) is Stage.ENDED and not record.busy
        if report.differs(want.status, body):
            wait_s = self._coalesce(record, body, now)
            if wait_s > 0 and not final:
                return wait_s
            await self._write(record, want, body)
            self._after_write(record, body, now)
            if body.get("reason") and want.status.get("phase") != body["phase"]:
                text = str(body["message"]).removeprefix("Pod was rejected: ")
                self.ports.events.tell(want, str(body["reason"]), text, warning=True)
        record.changed_at = 0.0
        if final:
            await self._delete(record)
        return None

    def _coalesce(self, record: Record, body: Object, now: float) -> float:
        if not record.changed_at:
            record.changed_at = now
        if report.urgent(record.reported, body):
            return 0.0
        return record.changed_at + COALESCE_S - now

    async def _write(self, record: Record, want: PodView, body: Object) -> None:
        path = f"/api/v1/namespaces/{want.namespace}/pods/{want.name}/status"
        try:
            made = await self.kube.patch(path, report.patch(want, body), "application/strategic-merge-patch+json")
            record.reported_revision = revision_of(made)
        except KubeError as err:
            if err.code not in (404, 409):
                raise
            log.info("status not written: the pod is gone or another", pod=want.key, reason=str(err))
        metrics.status_writes.inc()
        record.reported = body

    def _after_write(self, record: Record, body: Object, now: float) -> None:
        if report.is_ready(body) and not record.ready_counted:
            record.ready_counted = True
            if record.seen_at:
                metrics.pod_start_seconds.observe(max(0.0, now - record.seen_at))
        waiting = {each["name"]: (each["state"].get("waiting") or {}).get("reason") for each in report.statuses(body)}
        for name, failed in list(record.image_failures.items()):
            shown = "ErrImagePull" in (waiting.values() if name.startswith(VOLUME_PREFIX) else (waiting.get(name),))
            if failed.reason == "ErrImagePull" and shown:
                # Shown once as it is; from now on the pod is backing off.
                image = image_of(record.view, name)
                text = f'Back-off pulling image "{image}": ErrImagePull: {failed.message}'
                record.image_failures[name] = Failure("ImagePullBackOff", text, failed.retry_at, failed.count)
                about = "" if name.startswith(VOLUME_PREFIX) else name
                self.ports.events.tell(record.view, "BackOff", f'Back-off pulling image "{image}"', container=about)
                self.ports.events.tell(record.view, "Failed", "Error: ImagePullBackOff", container=about, warning=True)
                self.reports.add(record.uid)
        for name, reason in waiting.items():
            if reason == "CrashLoopBackOff":
                key = f"{record.view.name}_{record.view.namespace}({record.uid})"
                text = f"Back-off restarting failed container {name} in pod {key}"
                self.ports.events.tell(record.view, "BackOff", text, container=name, warning=True)

    async def _delete(self, record: Record) -> None:
        view = record.view
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": record.uid},
        }
        try:
            await self.kube.delete(f"/api/v1/namespaces/{view.namespace}/pods/{view.name}", options)
        except KubeError as err:
            if err.code not in (404, 409):
                raise
        if not view.metadata.get("finalizers"):
            record.wanted = False
            self.plans.add(record.uid)

    # --- safety nets

    async def _audit(self) -> None:
        while True:
            await self.clock.sleep(audit_period_s)
            self.ports.runtime.audit()
            for uid in self.records:
                self.plans.add(uid)

    def needed_images(self) -> Needed:
        """Images that a pod of this host uses, or will once it starts a container."""
        names: set[str] = set()
        for record in self.records.values():
            names.update(each.image for each in pulled(record.view))
            names.update(each.id for each in record.images.values())
            names.update(each.image_id for each in self._all_attempts(record))
        return Needed(frozenset(names))

    def _all_attempts(self, record: Record) -> Iterable[ContainerState]:
        return (each for attempts in self.ports.runtime.attempts(record.uid).values() for each in attempts)

    def count(self) -> None:
        """Set the gauges of running pods and containers."""
        running = [each for each in self.ports.runtime.running() if each.name != PAUSE]
        metrics.running_containers.set(len(running))
        metrics.running_pods.set(len({each.pod_uid for each in running}))


def revision_of(pod: Object) -> int:
    """The resourceVersion as a number, by which Kubernetes lets versions of an object be ordered; 0 without one."""
    text = str((pod.get("metadata") or {}).get("resourceVersion") or "")
    return int(text) if text.isdigit() else 0


def _with_status(record: Record) -> PodView:
    """The pod with what we last reported in its status, as long as the watch has not brought that back yet.

    From then on the API's word counts: a host that was away finds its pods marked not ready, and has to say otherwise.
    """
    if record.reported is None or revision_of(record.pod) >= record.reported_revision:
        return record.view
    status = {**record.view.status, **record.reported}
    own = {report.RESIZING, *(each["type"] for each in record.reported["conditions"])}
    others = [each for each in record.view.status.get("conditions") or () if each["type"] not in own]
    return PodView({**record.pod, "status": {**status, "conditions": [*record.reported["conditions"], *others]}})
