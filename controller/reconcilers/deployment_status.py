"""A Deployment's status and conditions, as kubectl rollout and kubectl describe read them. Pure."""

import copy
from collections.abc import Sequence
from typing import Any

from common.clock import parse_rfc3339
from controller.kinds.kind import Object
from controller.reconcilers import conditions
from controller.reconcilers.rollout import Bounds, spec_replicas, status_count

PROGRESS_DEADLINE_DEFAULT_S = 600
NO_DEADLINE = 2**31 - 1


def counts(deployment: Object, new: Object | None, everyone: Sequence[Object], bounds: Bounds, now: float) -> Object:
    """All but the Progressing condition."""
    available = sum(status_count(rs, "availableReplicas") for rs in everyone)
    old = deployment.get("status") or {}
    numbers = {
        "replicas": sum(status_count(rs, "replicas") for rs in everyone),
        "updatedReplicas": status_count(new, "replicas") if new is not None else 0,
        "readyReplicas": sum(status_count(rs, "readyReplicas") for rs in everyone),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(spec_replicas(rs) for rs in everyone) - available),
        "terminatingReplicas": sum(status_count(rs, "terminatingReplicas") for rs in everyone),
        "collisionCount": old.get("collisionCount", 0),
    }
    status: dict[str, Any] = {name: count for name, count in numbers.items() if count}
    status["observedGeneration"] = deployment["metadata"].get("generation", 0)
    enough = available >= bounds.minimum
    status["conditions"] = conditions.with_condition(
        old.get("conditions"),
        "Available",
        "True" if enough else "False",
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "Deployment has minimum availability." if enough else "Deployment does not have minimum availability.",
        now,
        update_time=True,
    )
    return status


def is_complete(deployment: Object, status: Object) -> bool:
    """Every replica is of the new template, available, and no old one is left."""
    want = deployment["spec"].get("replicas", 1)
    return all(status.get(name, 0) == want for name in ("updatedReplicas", "replicas", "availableReplicas"))


def with_progress(
    deployment: Object, status: Object, new: Object | None, created: str, now: float
) -> tuple[Object, float | None]:
    """Add the Progressing condition of a rollout; ``created`` names a ReplicaSet that this plan creates.

    Returns the status and the seconds until the deadline has to be looked at again.
    """
    deadline_s = deployment["spec"].get("progressDeadlineSeconds", PROGRESS_DEADLINE_DEFAULT_S)
    if deadline_s >= NO_DEADLINE:
        return {**status, "conditions": conditions.without(status["conditions"], "Progressing")}, None
    old = deployment.get("status") or {}
    known = conditions.find(old.get("conditions"), "Progressing")
    if created:
        text = f'Created new replica set "{created}"'
        return _set(status, "True", "NewReplicaSetCreated", text, now), deadline_s
    name = new["metadata"]["name"] if new is not None else deployment["metadata"]["name"]
    subject = f'ReplicaSet "{name}"' if new is not None else f'Deployment "{name}"'
    if is_complete(deployment, status):
        return _set(status, "True", "NewReplicaSetAvailable", f"{subject} has successfully progressed.", now), None
    settled = status.get("replicas", 0) == status.get("updatedReplicas", 0)
    if settled and known is not None and known.get("reason") == "NewReplicaSetAvailable":
        # The rollout was done; pods that fail later are not its business.
        return status, None
    if _progressed(old, status) or known is None or known.get("reason") == "NewReplicaSetAvailable":
        fresh = _set(status, "True", "ReplicaSetUpdated", f"{subject} is progressing.", now, touch=True)
        return fresh, deadline_s
    if known.get("reason") == "ProgressDeadlineExceeded":
        return status, None
    left_s = parse_rfc3339(known.get("lastUpdateTime") or known["lastTransitionTime"]) + deadline_s - now
    if left_s > 0 or known.get("reason") == "DeploymentPaused":
        return status, max(1.0, left_s)
    return _set(status, "False", "ProgressDeadlineExceeded", f"{subject} has timed out progressing.", now), None


def with_pause(deployment: Object, status: Object, now: float) -> Object:
    """Say that the rollout is paused, or resumed, so that its deadline does not run on meanwhile."""
    if deployment["spec"].get("progressDeadlineSeconds", PROGRESS_DEADLINE_DEFAULT_S) >= NO_DEADLINE:
        return status
    known = conditions.find(status["conditions"], "Progressing")
    reason = known.get("reason") if known is not None else None
    if reason == "ProgressDeadlineExceeded":
        return status
    paused = bool(deployment["spec"].get("paused"))
    if paused and reason != "DeploymentPaused":
        return _set(status, "Unknown", "DeploymentPaused", "Deployment is paused", now)
    if not paused and reason == "DeploymentPaused":
        return _set(status, "Unknown", "DeploymentResumed", "Deployment is resumed", now)
    return status


def with_replica_failure(status: Object, everyone: Sequence[Object], now: float) -> Object:
    """Carry a ReplicaSet's ReplicaFailure up to where users look."""
    for rs in everyone:
        found = conditions.find((rs.get("status") or {}).get("conditions"), "ReplicaFailure")
        if found is not None:
            listed = conditions.with_condition(
                status["conditions"],
                "ReplicaFailure",
                found["status"],
                found.get("reason", ""),
                found.get("message", ""),
                now,
                update_time=True,
            )
            return {**status, "conditions": listed}
    return {**status, "conditions": conditions.without(status["conditions"], "ReplicaFailure")}


def _progressed(old: Object, fresh: Object) -> bool:
    def count(status: Object, name: str) -> int:
        return int(status.get(name) or 0)

    return (
        count(fresh, "updatedReplicas") > count(old, "updatedReplicas")
        or count(fresh, "replicas") - count(fresh, "updatedReplicas")
        < count(old, "replicas") - count(old, "updatedReplicas")
        or count(fresh, "readyReplicas") > count(old, "readyReplicas")
        or count(fresh, "availableReplicas") > count(old, "availableReplicas")
    )


def _set(status: Object, value: str, reason: str, message: str, now: float, *, touch: bool = False) -> Object:
    listed = copy.deepcopy(status["conditions"])
    if touch:
        # Progress restarts the deadline even when the words stay the same.
        listed = [{**c, "message": ""} if c.get("type") == "Progressing" else c for c in listed]
    listed = conditions.with_condition(listed, "Progressing", value, reason, message, now, update_time=True)
    return {**status, "conditions": listed}
