"""What controllers ask about a pod. Pure."""

from typing import Final

from common.clock import parse_rfc3339
from controller.kinds.kind import Object
from controller.reconcilers import conditions

FINISHED: Final = ("Succeeded", "Failed")


def is_terminal(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in FINISHED


def is_deleting(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def is_active(pod: Object) -> bool:
    """Counts as a replica: neither finished nor on its way out."""
    return not is_terminal(pod) and not is_deleting(pod)


def is_terminating(pod: Object) -> bool:
    """On its way out, with containers that may still run."""
    return is_deleting(pod) and not is_terminal(pod)


def is_ready(pod: Object) -> bool:
    return conditions.is_true((pod.get("status") or {}).get("conditions"), "Ready")


def node_of(pod: Object) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "")


def created_at(obj: Object) -> float:
    """Seconds since the epoch."""
    return _time(obj["metadata"].get("creationTimestamp"))


def ready_since(pod: Object) -> float:
    found = conditions.find((pod.get("status") or {}).get("conditions"), "Ready")
    return _time(found.get("lastTransitionTime")) if found is not None else 0.0


def available_in_s(pod: Object, min_ready_s: int, now: float) -> float | None:
    """0 when the pod is available, else the seconds until it may be; None while it is not ready."""
    if not is_ready(pod):
        return None
    return max(0.0, ready_since(pod) + min_ready_s - now) if min_ready_s else 0.0


def restarts(pod: Object) -> int:
    return max((c.get("restartCount", 0) for c in (pod.get("status") or {}).get("containerStatuses") or ()), default=0)


def has_run(pod: Object) -> bool:
    """Whether a container of it was ever started."""
    status = pod.get("status") or {}
    listed = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return any(
        ((each.get(which) or {}).get(state) or {}).get("startedAt")
        for each in listed
        for which in ("state", "lastState")
        for state in ("running", "terminated")
    )


def _time(text: object) -> float:
    return parse_rfc3339(text) if isinstance(text, str) else 0.0
