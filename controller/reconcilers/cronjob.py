"""CronJob: makes a Job at each scheduled time, at most once for each.

Follows ``pkg/controller/cronjob`` of Kubernetes. A Job's name holds its scheduled minute, so that a controller which
dies between making it and noting the time makes no second one. Of several missed times only the last is made up for.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from common.clock import parse_rfc3339, rfc3339
from controller.kinds.cron_schedule import InvalidSchedule, Schedule, parse_schedule, parse_zone
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions, job_outcome, owners, pods
from controller.runtime.reconciler import Map, own_key, owner_keys
from controller.runtime.resources import CRON_JOBS, JOBS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Delete, EmitEvent, Plan, UpdateStatus, Write

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
MISSED_MAX = 100
_LOOK_BACK_S = (3600.0, 86_400.0, 7 * 86_400.0, 366 * 86_400.0, 5 * 366 * 86_400.0)


@dataclass(frozen=True, slots=True)
class _Due:
    """``at`` is the newest scheduled time that has passed, None when none has since the last one."""

    at: float | None
    next_at: float | None
    too_many: bool = False


class CronJobReconciler:
    """See the module."""

    name = "cronjob-controller"
    watches: Mapping[ResourceKey, Map] = {CRON_JOBS: own_key, JOBS: owner_keys(CRON_JOBS)}

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        cron_job = view.get(CRON_JOBS, namespace, name)
        if cron_job is None:
            return NOTHING_TO_DO
        jobs = [
            job
            for entry in view.owned(cron_job["metadata"]["uid"])
            if entry.resource == JOBS and owners.is_controlled_by(job := view.decode(entry), cron_job)
        ]
        status, news = _status(cron_job, jobs)
        writes: list[Write] = [*news, *_surplus(cron_job, jobs)]
        again_s: float | None = None
        if not pods.is_deleting(cron_job) and not cron_job["spec"].get("suspend"):
            steps, again_s = self._start(view, key, cron_job, jobs, status, now)
            writes += steps
        if status != (cron_job.get("status") or {}):
            writes.append(UpdateStatus(CRON_JOBS, {**cron_job, "status": status}))
        return Plan(tuple(writes), again_s, f"{len(status.get('active') or ())} active jobs")

    def _start(
        self, view: View, key: str, cron_job: Object, jobs: Sequence[Object], status: Object, now: float
    ) -> tuple[list[Write], float | None]:
        """Make the job that is due. ``status`` is brought up to it. Also: when to look again."""
        spec = cron_job["spec"]
        try:
            schedule, zone = parse_schedule(spec["schedule"]), parse_zone(spec.get("timeZone"))
        except InvalidSchedule as err:
            text = f"unparseable schedule: {spec['schedule']} : {err}"
            return [EmitEvent(cron_job, "Warning", "UnparseableSchedule", text)], None
        due = _due(cron_job, schedule, zone, now)
        again_s = None if due.next_at is None else max(0.1, due.next_at - now + 0.1)
        if due.at is None:
            return [], again_s
        steps: list[Write] = []
        if due.too_many:
            text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            steps.append(EmitEvent(cron_job, "Warning", "TooManyMissedTimes", text))
        meta = cron_job["metadata"]
        name = f"{meta['name']}-{int(due.at) // 60}"
        if view.entry(JOBS, meta["namespace"], name) is not None:
            status["lastScheduleTime"] = rfc3339(due.at)
            return steps, again_s
        active = [job for job in jobs if not job_outcome.has_ended(job)]
        policy = spec.get("concurrencyPolicy", "Allow")
        if active and policy == "Forbid":
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            return [*steps, EmitEvent(cron_job, "Normal", "JobAlreadyActive", text)], again_s
        if active and policy == "Replace":
            steps += [_delete(cron_job, job) for job in active if not pods.is_deleting(job)]
        failure = view.failure(self.name, key)
        if failure is not None:
            text = f"Error creating job: {failure.message}"
            steps.append(EmitEvent(cron_job, "Warning", "FailedCreate", text))
        event = EmitEvent(cron_job, "Normal", "SuccessfulCreate", f"Created job {name}")
        steps.append(Create(JOBS, _job(cron_job, name, due.at, zone), event))
        status["lastScheduleTime"] = rfc3339(due.at)
        return steps, again_s


def _due(cron_job: Object, schedule: Schedule, zone: tzinfo, now: float) -> _Due:
    last = (cron_job.get("status") or {}).get("lastScheduleTime")
    earliest = parse_rfc3339(last) if last else pods.created_at(cron_job)
    deadline = cron_job["spec"].get("startingDeadlineSeconds")
    since = earliest if deadline is None else max(earliest, now - deadline)
    if schedule.every_s:
        # Counted from the last time, whatever was too late in between.
        passed = max(0, int((now - earliest) // schedule.every_s))
        at = earliest + passed * schedule.every_s
        due_at = at if passed and at >= since else None
        return _Due(due_at, at + schedule.every_s, deadline is None and passed > MISSED_MAX)
    next_at = schedule.after(now, zone)
    for window_s in _LOOK_BACK_S:
        start = max(since, now - window_s)
        latest: float | None = None
        found = schedule.after(start, zone)
        while found is not None and found <= now:
            latest = found
            found = schedule.after(found, zone)
        if latest is not None:
            too_many = deadline is None and _missed_more_than(MISSED_MAX, schedule, zone, since, now)
            return _Due(latest, next_at, too_many)
        if start == since:
            break
    return _Due(None, next_at)


def _missed_more_than(limit: int, schedule: Schedule, zone: tzinfo, since: float, now: float) -> bool:
    at: float | None = since
    for _ in range(limit + 1):
        at = schedule.after(at, zone) if at is not None else None
        if at is None or at > now:
            return False
    return True


def _status(cron_job: Object, jobs: Sequence[Object]) -> tuple[Object, list[Write]]:
    """The status as far as it follows from the jobs, and what there is to tell about those that changed."""
    old = cron_job.get("status") or {}
    by_uid = {job["metadata"]["uid"]: job for job in jobs}
    news: list[Write] = []
    for reference in old.get("active") or ():
        job = by_uid.get(reference["uid"])
        if job is None:
            text = f"Active job went missing: {reference['name']}"
            news.append(EmitEvent(cron_job, "Normal", "MissingJob", text))
        elif job_outcome.has_ended(job):
            kind = next(k for k in job_outcome.TERMINAL if conditions.is_true(job_outcome.conditions_of(job), k))
            text = f"Saw completed job: {reference['name']}, condition: {kind}"
            news.append(EmitEvent(cron_job, "Normal", "SawCompletedJob", text))
    status: Object = {}
    active = [_reference(job) for job in sorted(jobs, key=pods.created_at) if not job_outcome.has_ended(job)]
    if active:
        status["active"] = active
    if old.get("lastScheduleTime"):
        status["lastScheduleTime"] = old["lastScheduleTime"]
    times = [(job.get("status") or {}).get("completionTime") for job in jobs]
    last = max(filter(None, [*times, old.get("lastSuccessfulTime")]), default=None)
    if last:
        status["lastSuccessfulTime"] = last
    return status, news


def _reference(job: Object) -> Object:
    meta = job["metadata"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": meta["name"],
        "namespace": meta["namespace"],
        "uid": meta["uid"],
    }


def _surplus(cron_job: Object, jobs: Sequence[Object]) -> list[Write]:
    """Ended jobs beyond the history limits, the oldest first."""
    spec = cron_job["spec"]
    found: list[Write] = []
    for kind, limit in (
        ("Complete", spec.get("successfulJobsHistoryLimit", 3)),
        ("Failed", spec.get("failedJobsHistoryLimit", 1)),
    ):
        ended = [job for job in jobs if conditions.is_true(job_outcome.conditions_of(job), kind)]
        ended.sort(key=lambda job: (pods.created_at(job), job["metadata"]["name"]))
        doomed = ended[: max(0, len(ended) - limit)]
        found += [_delete(cron_job, job) for job in doomed if not pods.is_deleting(job)]
    return found


def _delete(cron_job: Object, job: Object) -> Delete:
    meta = job["metadata"]
    event = EmitEvent(cron_job, "Normal", "SuccessfulDelete", f"Deleted job {meta['name']}")
    return Delete(JOBS, meta["namespace"], meta["name"], meta["uid"], propagation="Background", event=event)


def _job(cron_job: Object, name: str, at: float, zone: tzinfo) -> Object:
    template = cron_job["spec"]["jobTemplate"]
    wanted = template.get("metadata") or {}
    when = datetime.fromtimestamp(at, zone).isoformat().replace("+00:00", "Z")
    metadata: Object = {
        "name": name,
        "namespace": cron_job["metadata"]["namespace"],
        "annotations": {**(wanted.get("annotations") or {}), SCHEDULED_AT: when},
        "ownerReferences": [owners.reference_to(cron_job)],
    }
    if wanted.get("labels"):
        metadata["labels"] = dict(wanted["labels"])
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": copy.deepcopy(template["spec"])}
