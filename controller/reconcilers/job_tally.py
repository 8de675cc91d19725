"""Counting a Job's pods, each exactly once, whatever is killed in between (KEP-2307). Pure.

A pod keeps the finalizer ``batch.kubernetes.io/job-tracking`` until its end is in the Job's status. First its uid goes
into ``uncountedTerminatedPods`` (or its index into ``completedIndexes``), then the finalizer goes, then the uid becomes
part of the count. A pod without the finalizer has been counted, or must not be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.kinds.kind import Object
from controller.reconcilers import job_indexes, pods
from controller.reconcilers.pod_failure_policy import Judgement, judge

FINALIZER = "batch.kubernetes.io/job-tracking"


@dataclass(frozen=True, slots=True)
class Tally:
    """``succeeded`` and ``failed`` include what the status does not yet; ``status`` is the counting part of that."""

    active: tuple[Object, ...]
    terminating: int
    ready: int
    succeeded: int
    failed: int
    completed: frozenset[int]
    failed_indexes: frozenset[int]
    release: tuple[Object, ...]
    """Pods whose finalizer may go: their end is in the stored status."""
    settled: bool
    """Every end is counted."""
    fail_job: str
    """Why the failure policy ends the job; empty if it does not."""
    status: Object


def is_indexed(job: Object) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def has_finalizer(pod: Object) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def has_failed(job: Object, pod: Object) -> bool:
    """Failed, or will have: a pod on its way out never comes back."""
    phase = (pod.get("status") or {}).get("phase")
    if phase in pods.FINISHED or not pods.is_deleting(pod):
        return bool(phase == "Failed")
    return job["spec"].get("podReplacementPolicy") != "Failed" or phase == "Pending"


def take(job: Object, owned: Sequence[Object]) -> Tally:
    """Count ``owned``, the pods that the job controls."""
    old = job.get("status") or {}
    completions = job["spec"].get("completions") or 0
    stored = job_indexes.parse(old.get("completedIndexes", ""), completions)
    listed = old.get("uncountedTerminatedPods") or {}
    waiting = {kind: list(listed.get(kind) or ()) for kind in ("succeeded", "failed")}
    tracked = {pod["metadata"]["uid"]: pod for pod in owned if has_finalizer(pod)}
    counted = {kind: [uid for uid in uids if uid not in tracked] for kind, uids in waiting.items()}
    waiting = {kind: [uid for uid in uids if uid in tracked] for kind, uids in waiting.items()}
    known = {*waiting["succeeded"], *waiting["failed"]}
    release = [tracked[uid] for uid in sorted(known)]
    completed, failed_indexes = set(stored), set(job_indexes.parse(old.get("failedIndexes", ""), completions))
    fail_job = ""
    for uid, pod in sorted(tracked.items()):
        if uid in known:
            continue
        if (pod.get("status") or {}).get("phase") == "Succeeded":
            index = job_indexes.index_of(pod)
            if not is_indexed(job):
                waiting["succeeded"].append(uid)
            elif index is None or index >= completions or index in stored:
                release.append(pod)
            else:
                completed.add(index)
        elif has_failed(job, pod):
            judgement = judge(job["spec"].get("podFailurePolicy"), pod)
            if judgement.action == "FailJob":
                fail_job = fail_job or judgement.message
            if judgement.action == "Ignore":
                release.append(pod)
            else:
                waiting["failed"].append(uid)
            if ends_index(job, pod, judgement):
                failed_indexes.add(job_indexes.index_of(pod) or 0)
    failed_indexes -= completed
    succeeded = len(completed) if is_indexed(job) else old.get("succeeded", 0) + len(counted["succeeded"])
    failed = old.get("failed", 0) + len(counted["failed"])
    return Tally(
        active=tuple(pod for pod in owned if pods.is_active(pod)),
        terminating=sum(pods.is_terminating(pod) for pod in owned),
        ready=sum(pods.is_active(pod) and pods.is_ready(pod) for pod in owned),
        succeeded=succeeded + (0 if is_indexed(job) else len(waiting["succeeded"])),
        failed=failed + len(waiting["failed"]),
        completed=frozenset(completed),
        failed_indexes=frozenset(failed_indexes),
        release=tuple(release),
        settled=not waiting["succeeded"] and not waiting["failed"] and completed == stored,
        fail_job=fail_job,
        status=_status(job, waiting, succeeded, failed, completed, failed_indexes),
    )


def ends_index(job: Object, pod: Object, judgement: Judgement) -> bool:
    """Whether this failure is the last that the pod's index may have."""
    limit = job["spec"].get("backoffLimitPerIndex")
    if limit is None or job_indexes.index_of(pod) is None or judgement.action == "Ignore":
        return False
    return judgement.action == "FailIndex" or job_indexes.failures_of(pod) >= limit


def _status(
    job: Object,
    waiting: dict[str, list[str]],
    succeeded: int,
    failed: int,
    completed: set[int],
    failed_indexes: set[int],
) -> Object:
    status: Object = {name: count for name, count in (("succeeded", succeeded), ("failed", failed)) if count}
    uncounted = {kind: uids for kind, uids in waiting.items() if uids}
    if uncounted:
        status["uncountedTerminatedPods"] = uncounted
    if completed:
        status["completedIndexes"] = job_indexes.text_of(completed)
    if job["spec"].get("backoffLimitPerIndex") is not None and failed_indexes:
        status["failedIndexes"] = job_indexes.text_of(failed_indexes)
    return status
