"""Job: runs pods until enough have succeeded, or it has failed for good.

Follows ``pkg/controller/job`` of Kubernetes. Counting is in ``job_tally``, the end in ``job_outcome``. Delays after
failures are read off the pods that failed, so that a restarted controller keeps them.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from common.clock import parse_rfc3339
from common.selectors import from_label_selector
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions, job_indexes, job_outcome, job_tally, owners, pods
from controller.reconcilers.adoption import claim, controller_keys, selecting_keys
from controller.reconcilers.job_tally import FINALIZER, Tally, is_indexed
from controller.reconcilers.replicaset import BURST_MAX, pod_from, victims
from controller.runtime.reconciler import Map
from controller.runtime.resources import JOBS, PODS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Delete, EmitEvent, Patch, Plan, UpdateStatus, Write
from controller.store.cache import Change

BACKOFF_S, BACKOFF_S_MAX = 10.0, 600.0
CONTROLLER = "kubernetes.io/job-controller"
_STRAY = "stray pod "
_KEYS_OF_POD = controller_keys(JOBS)


def _keys_of_job(view: View, change: Change) -> Iterable[str]:
    """The job; when it is gone also its pods, which keep their finalizers."""
    entry = change.entry
    left = view.owned(entry.uid) if change.type == "DELETED" else []
    return (f"{entry.namespace}/{entry.name}", *(f"{_STRAY}{each.namespace}/{each.name}" for each in left))


def _keys_of_pod(view: View, change: Change) -> Iterable[str]:
    found = tuple(_KEYS_OF_POD(view, change))
    if found or change.type == "DELETED" or not job_tally.has_finalizer(view.decode(change.entry)):
        return found
    return (f"{_STRAY}{change.entry.namespace}/{change.entry.name}",)


class JobReconciler:
    """See the module."""

    name = "job-controller"
    watches: Mapping[ResourceKey, Map] = {JOBS: _keys_of_job, PODS: _keys_of_pod}

    def plan(self, view: View, key: str, now: float) -> Plan:
        if key.startswith(_STRAY):
            return _let_go_stray(view, *split(key.removeprefix(_STRAY)))
        job = view.get(JOBS, *split(key))
        if job is None or job["spec"].get("managedBy", CONTROLLER) != CONTROLLER:
            return NOTHING_TO_DO
        members = claim(view, job, PODS, from_label_selector(job["spec"].get("selector")))
        if pods.is_deleting(job) and (unknown := _unselected(view, job, members.owned)):
            return Plan(
                tuple(_without_finalizer(pod) for pod in unknown), None, "let go of pods that it does not select"
            )
        tally = job_tally.take(job, members.owned)
        if job_outcome.has_ended(job):
            tracked = [pod for pod in members.owned if job_tally.has_finalizer(pod)]
            return Plan(tuple(_without_finalizer(pod) for pod in tracked), None, "ended")
        found = job_outcome.verdict(job, tally, now)
        steps: list[Write] = []
        waits: list[float] = []
        # What is adopted now is counted on a view that has it.
        if found is not None and not members.adopted:
            steps += [_delete(job, pod) for pod in tally.active]
        elif not members.adopted and not pods.is_deleting(job):
            steps, waits = _manage(view, job, tally, members.owned, now)
            left_s = job_outcome.deadline_in_s(job, now)
            waits += [left_s] if left_s is not None else []
        status = job_outcome.status_of(job, tally, found, now)
        reports: list[Write] = []
        if status != (job.get("status") or {}):
            reports = [UpdateStatus(JOBS, {**job, "status": status}), *_news(job, status)]
        failure = view.failure(self.name, key)
        if failure is None:
            steps += reports
        else:
            # What is refused must not keep the rest from being counted.
            steps = [EmitEvent(job, "Warning", "FailedCreate", f"Error creating: {failure.message}"), *reports, *steps]
        writes = [*members.writes, *(_without_finalizer(pod) for pod in tally.release), *steps]
        return Plan(tuple(writes), min(waits, default=None), f"{tally.succeeded} succeeded, {tally.failed} failed")


def _unselected(view: View, job: Object, owned: Sequence[Object]) -> list[Object]:
    """Pods that name the job and are not selected by it: a job that goes releases them no more, nor counts them."""
    known = {pod["metadata"]["uid"] for pod in owned}
    found = (view.decode(each) for each in view.owned(job["metadata"]["uid"]) if each.resource == PODS)
    return [pod for pod in found if pod["metadata"]["uid"] not in known and job_tally.has_finalizer(pod)]


def _let_go_stray(view: View, namespace: str, name: str) -> Plan:
    """A pod whose job is gone need not be counted any more."""
    pod = view.get(PODS, namespace, name)
    if pod is None or not job_tally.has_finalizer(pod):
        return NOTHING_TO_DO
    controller = owners.controller_of(pod)
    if controller is not None and view.by_uid(str(controller["uid"])) is not None:
        return NOTHING_TO_DO
    labels = pod["metadata"].get("labels") or {}
    if controller is None and not pods.is_deleting(pod) and selecting_keys(view, JOBS, namespace, labels):
        return NOTHING_TO_DO
    return Plan((_without_finalizer(pod),), None, "let go of a pod without a job")


@dataclass(frozen=True, slots=True)
class _Failures:
    """Failures in a row, newest last; what is remembered is what pods are still there."""

    count: int
    last_at: float

    def ready_in_s(self, now: float) -> float:
        if not self.count:
            return 0.0
        return max(0.0, self.last_at + min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(10, self.count - 1)) - now)


def _manage(
    view: View, job: Object, tally: Tally, owned: Sequence[Object], now: float
) -> tuple[list[Write], list[float]]:
    """Bring the number of active pods to what is wanted."""
    spec = job["spec"]
    retrack = [_with_finalizer(pod) for pod in tally.active if not job_tally.has_finalizer(pod)]
    if retrack:
        return [*retrack], []
    if spec.get("suspend"):
        return _remove(job, tally.active), []
    kept, surplus = _split_by_index(job, tally) if is_indexed(job) else (list(tally.active), [])
    want = _wanted(job, tally, len(kept))
    surplus += victims(kept)[: max(0, len(kept) - want)]
    if surplus:
        return _remove(job, surplus[:BURST_MAX]), []
    holding = tally.terminating if spec.get("podReplacementPolicy") == "Failed" else 0
    lacking = min(BURST_MAX, want - len(kept) - holding)
    if lacking <= 0:
        return [], []
    if is_indexed(job):
        return _create_indexed(view, job, tally, owned, lacking, now)
    left_s = _failures_in_a_row(job, owned).ready_in_s(now)
    if left_s > 0:
        return [], [left_s]
    return _create(view, job, [None] * lacking, {}), []


def _wanted(job: Object, tally: Tally, active: int) -> int:
    spec = job["spec"]
    parallelism, completions = spec.get("parallelism", 1), spec.get("completions")
    if completions is None:
        # A work queue: once one worker has ended well, no more are started.
        return int(min(active, parallelism) if tally.succeeded else parallelism)
    left = completions - tally.succeeded - (len(tally.failed_indexes) if is_indexed(job) else 0)
    return int(min(parallelism, max(0, left)))


def _split_by_index(job: Object, tally: Tally) -> tuple[list[Object], list[Object]]:
    """Active pods, one for each index that is still to be done; and all others."""
    kept: dict[int, Object] = {}
    surplus: list[Object] = []
    for pod in sorted(tally.active, key=lambda each: (pods.created_at(each), each["metadata"]["name"])):
        index = job_indexes.index_of(pod)
        done = index is None or index >= (job["spec"].get("completions") or 0) or index in tally.completed
        if index is None or done or index in tally.failed_indexes or index in kept:
            surplus.append(pod)
        else:
            kept[index] = pod
    return list(kept.values()), surplus


def _create_indexed(
    view: View, job: Object, tally: Tally, owned: Sequence[Object], lacking: int, now: float
) -> tuple[list[Write], list[float]]:
    taken = {job_indexes.index_of(pod) for pod in tally.active} | tally.completed | tally.failed_indexes
    if job["spec"].get("podReplacementPolicy") == "Failed":
        taken |= {job_indexes.index_of(pod) for pod in owned if pods.is_terminating(pod)}
    per_index = job["spec"].get("backoffLimitPerIndex") is not None
    whole = _failures_in_a_row(job, owned)
    chosen: list[int | None] = []
    counts: dict[int, int] = {}
    waits: list[float] = []
    for index in range(job["spec"].get("completions") or 0):
        if len(chosen) == lacking:
            break
        if index in taken:
            continue
        failures = whole
        if per_index:
            mine = [pod for pod in owned if job_indexes.index_of(pod) == index and job_tally.has_failed(job, pod)]
            counts[index] = max((job_indexes.failures_of(pod) + 1 for pod in mine), default=0)
            failures = _Failures(counts[index], max((_ended_at(pod) for pod in mine), default=0.0))
        left_s = failures.ready_in_s(now)
        if left_s > 0:
            waits.append(left_s)
        else:
            chosen.append(index)
    return _create(view, job, chosen, counts), waits


def _failures_in_a_row(job: Object, owned: Sequence[Object]) -> _Failures:
    """Since the last success."""
    good = [_ended_at(pod) for pod in owned if (pod.get("status") or {}).get("phase") == "Succeeded"]
    since = max(good, default=0.0)
    bad = [_ended_at(pod) for pod in owned if (pod.get("status") or {}).get("phase") == "Failed"]
    recent = [at for at in bad if at > since]
    return _Failures(len(recent), max(recent, default=0.0))


def _ended_at(pod: Object) -> float:
    status = pod.get("status") or {}
    ended = [(each.get("state") or {}).get("terminated") or {} for each in status.get("containerStatuses") or ()]
    times = [parse_rfc3339(each["finishedAt"]) for each in ended if each.get("finishedAt")]
    return max(times, default=0.0) or pods.ready_since(pod) or pods.created_at(pod)


def _create(view: View, job: Object, indexes: Sequence[int | None], failures: Mapping[int, int]) -> list[Write]:
    meta = job["metadata"]
    found: list[Write] = []
    salt = owners.salt_of(job)

    def names(prefix: str, count: int) -> list[str]:
        return owners.fresh_names(prefix, salt, count, lambda n: view.entry(PODS, meta["namespace"], n) is not None)

    unnumbered = names(meta["name"], sum(index is None for index in indexes))
    for index in indexes:
        name = unnumbered.pop(0) if index is None else names(f"{meta['name']}-{index}", 1)[0]
        pod = pod_from(job, name)
        pod["metadata"]["finalizers"] = [*(pod["metadata"].get("finalizers") or ()), FINALIZER]
        if index is not None:
            _give_index(job, pod, index, failures.get(index))
        found.append(Create(PODS, pod, EmitEvent(job, "Normal", "SuccessfulCreate", f"Created pod: {name}")))
    return found


def _give_index(job: Object, pod: Object, index: int, failures: int | None) -> None:
    meta, spec = pod["metadata"], pod["spec"]
    annotations = {**(meta.get("annotations") or {}), job_indexes.INDEX: str(index)}
    if failures is not None:
        annotations[job_indexes.FAILURES] = str(failures)
    meta["annotations"] = annotations
    meta["labels"] = {**(meta.get("labels") or {}), job_indexes.INDEX: str(index)}
    spec["hostname"] = f"{job['metadata']['name']}-{index}"
    source = {"fieldRef": {"fieldPath": f"metadata.annotations['{job_indexes.INDEX}']"}}
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        env = container.get("env") or []
        if all(each["name"] != "JOB_COMPLETION_INDEX" for each in env):
            container["env"] = [*env, {"name": "JOB_COMPLETION_INDEX", "valueFrom": copy.deepcopy(source)}]


def _remove(job: Object, doomed: Sequence[Object]) -> list[Write]:
    """Take pods back: they have not failed, so they are not to be counted."""
    tracked = [pod for pod in doomed if job_tally.has_finalizer(pod)]
    return [*(_without_finalizer(pod) for pod in tracked), *(_delete(job, pod) for pod in doomed)]


def _delete(job: Object, pod: Object) -> Delete:
    meta = pod["metadata"]
    event = EmitEvent(job, "Normal", "SuccessfulDelete", f"Deleted pod: {meta['name']}")
    return Delete(PODS, meta["namespace"], meta["name"], meta["uid"], event=event)


def _without_finalizer(pod: Object) -> Patch:
    rest = [each for each in pod["metadata"].get("finalizers") or () if each != FINALIZER]
    return _finalizers(pod, rest)


def _with_finalizer(pod: Object) -> Patch:
    return _finalizers(pod, [*(pod["metadata"].get("finalizers") or ()), FINALIZER])


def _finalizers(pod: Object, wanted: list[str]) -> Patch:
    meta = pod["metadata"]
    change = {"finalizers": wanted, "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    return Patch(PODS, meta["namespace"], meta["name"], {"metadata": change})


def _news(job: Object, status: Object) -> list[Write]:
    """Events for conditions that have just become true."""
    old, new = job_outcome.conditions_of(job), status.get("conditions")
    found: list[Write] = []
    for kind, reason, text in (("Complete", "Completed", "Job completed"), ("Suspended", "Suspended", "Job suspended")):
        if conditions.is_true(new, kind) and not conditions.is_true(old, kind):
            found.append(EmitEvent(job, "Normal", reason, text))
    if conditions.is_true(old, "Suspended") and not conditions.is_true(new, "Suspended"):
        found.append(EmitEvent(job, "Normal", "Resumed", "Job resumed"))
    failed = conditions.find(new, "Failed")
    if failed is not None and not conditions.is_true(old, "Failed"):
        found.append(EmitEvent(job, "Warning", str(failed["reason"]), str(failed["message"])))
    return found
