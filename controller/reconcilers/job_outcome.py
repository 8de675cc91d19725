"""Whether a Job is done, and how: success and failure criteria, conditions, times. Pure.

A job is first *about* to end (``SuccessCriteriaMet``, ``FailureTarget``): its pods are stopped. It has ended
(``Complete``, ``Failed``) once none of them is left and each is counted (KEP-3939, KEP-3998).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from common.clock import parse_rfc3339, rfc3339
from controller.kinds.kind import Object
from controller.reconcilers import conditions, job_indexes
from controller.reconcilers.job_tally import Tally, is_indexed

TERMINAL = ("Complete", "Failed")
_ENDED_BY = {"SuccessCriteriaMet": "Complete", "FailureTarget": "Failed"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``target`` is ``SuccessCriteriaMet`` or ``FailureTarget``."""

    target: str
    reason: str
    message: str


def conditions_of(job: Object) -> Sequence[Object]:
    return (job.get("status") or {}).get("conditions") or ()


def has_ended(job: Object) -> bool:
    return any(conditions.is_true(conditions_of(job), kind) for kind in TERMINAL)


def ended_at(job: Object) -> float | None:
    """Seconds since the epoch; None while it runs."""
    for kind in TERMINAL:
        found = conditions.find(conditions_of(job), kind)
        if found is not None and found.get("status") == "True":
            return parse_rfc3339(str(found["lastTransitionTime"]))
    return None


def verdict(job: Object, tally: Tally, now: float) -> Verdict | None:
    """Why the job is to end, now or since before; None while it is to go on."""
    for target in _ENDED_BY:
        found = conditions.find(conditions_of(job), target)
        if found is not None and found.get("status") == "True":
            return Verdict(target, str(found.get("reason", "")), str(found.get("message", "")))
    if tally.fail_job:
        return Verdict("FailureTarget", "PodFailurePolicy", tally.fail_job)
    spec = job["spec"]
    met = _success_policy(job, tally)
    if met is not None:
        return met
    limit = spec.get("backoffLimit", 6)
    if tally.failed > limit or _restarted_too_often(job, tally):
        return Verdict("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    left_s = deadline_in_s(job, now)
    if left_s is not None and left_s <= 0:
        return Verdict("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
    most = spec.get("maxFailedIndexes")
    if most is not None and len(tally.failed_indexes) > most:
        text = "Job has exceeded the specified maximal number of failed indexes"
        return Verdict("FailureTarget", "MaxFailedIndexesExceeded", text)
    return _by_completions(job, tally)


def _by_completions(job: Object, tally: Tally) -> Verdict | None:
    completions = job["spec"].get("completions")
    reached = Verdict("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")
    if completions is None:
        # A work queue is done when one worker found it empty and all others have ended.
        return reached if tally.succeeded and not tally.active and not tally.terminating else None
    if tally.succeeded >= completions:
        return reached
    if is_indexed(job) and tally.succeeded + len(tally.failed_indexes) >= completions:
        return Verdict("FailureTarget", "FailedIndexes", "Job has failed indexes")
    return None


def _success_policy(job: Object, tally: Tally) -> Verdict | None:
    completions = job["spec"].get("completions") or 0
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        listed = rule.get("succeededIndexes")
        matched = tally.completed if listed is None else tally.completed & job_indexes.parse(listed, completions)
        needed = rule.get("succeededCount")
        if needed is None:
            needed = len(job_indexes.parse(listed or "", completions))
        if len(matched) >= needed:
            return Verdict("SuccessCriteriaMet", "SuccessPolicy", f"Matched rules at index {number}")
    return None


def _restarted_too_often(job: Object, tally: Tally) -> bool:
    """Containers that restart in place count for ``backoffLimit`` too."""
    spec = job["spec"]
    if spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = 0
    for pod in tally.active:
        status = pod.get("status") or {}
        if status.get("phase") in ("Running", "Pending"):
            for field in ("initContainerStatuses", "containerStatuses"):
                restarts += sum(each.get("restartCount", 0) for each in status.get(field) or ())
    limit = spec.get("backoffLimit", 6)
    return bool(restarts > 0 if limit == 0 else restarts >= limit)


def deadline_in_s(job: Object, now: float) -> float | None:
    """Seconds until ``activeDeadlineSeconds`` are over; None when they do not run."""
    deadline, started = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
    if deadline is None or started is None or job["spec"].get("suspend"):
        return None
    return parse_rfc3339(started) + float(deadline) - now


def status_of(job: Object, tally: Tally, found: Verdict | None, now: float) -> Object:
    """The whole status."""
    old = job.get("status") or {}
    status: Object = dict(tally.status)
    status |= {"ready": tally.ready, "terminating": tally.terminating}
    if tally.active:
        status["active"] = len(tally.active)
    listed = [dict(each) for each in conditions_of(job)]
    started = old.get("startTime")
    suspend = bool(job["spec"].get("suspend"))
    if found is None and suspend:
        listed = conditions.with_condition(listed, "Suspended", "True", "JobSuspended", "Job suspended", now)
        started = None
    elif found is None and conditions.is_true(listed, "Suspended"):
        listed = conditions.with_condition(listed, "Suspended", "False", "JobResumed", "Job resumed", now)
        started = rfc3339(now)
    elif not suspend:
        started = started or rfc3339(now)
    if found is not None:
        listed = conditions.with_condition(listed, found.target, "True", found.reason, found.message, now)
        if not tally.active and not tally.terminating and tally.settled:
            end = _ENDED_BY[found.target]
            listed = conditions.with_condition(listed, end, "True", found.reason, found.message, now)
            if end == "Complete":
                status["completionTime"] = old.get("completionTime") or rfc3339(now)
    if started:
        status["startTime"] = started
    if listed:
        status["conditions"] = listed
    return status
