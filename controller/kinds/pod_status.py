"""What ``kubectl get pods`` shows: READY, STATUS and RESTARTS by upstream's ``printPod``. Pure."""

from typing import Any

from controller.kinds.columns import dig
from controller.kinds.kind import Object


def _sidecars(pod: Object) -> set[str]:
    return {c["name"] for c in dig(pod, "spec.initContainers", []) if c.get("restartPolicy") == "Always"}


def ready(pod: Object) -> str:
    """``ready/total`` over the containers and started sidecars."""
    sidecars = _sidecars(pod)
    total = len(dig(pod, "spec.containers", [])) + len(sidecars)
    number = 0
    for status in dig(pod, "status.initContainerStatuses", []):
        if status.get("name") in sidecars and status.get("ready") and status.get("started"):
            number += 1
    for status in dig(pod, "status.containerStatuses", []):
        if status.get("ready") and dig(status, "state.running") is not None:
            number += 1
    return f"{number}/{total}"


def restarts(pod: Object) -> tuple[int, str]:
    """Restarts to show, and when the last one happened (``finishedAt``, empty if unknown)."""
    sidecars = _sidecars(pod)
    initial = dig(pod, "status.initContainerStatuses", [])
    if _initializing(pod) is not None:
        return _sum(initial)
    number, last = _sum(dig(pod, "status.containerStatuses", []))
    more, later = _sum([s for s in initial if s.get("name") in sidecars])
    return number + more, max(last, later)


def _sum(statuses: list[Object]) -> tuple[int, str]:
    number, last = 0, ""
    for status in statuses:
        number += int(status.get("restartCount") or 0)
        last = max(last, str(dig(status, "lastState.terminated.finishedAt", "")))
    return number, last


def _exit_text(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _initializing(pod: Object) -> str | None:
    """The ``Init:`` text while init containers are at work, else None."""
    sidecars = _sidecars(pod)
    total = len(dig(pod, "spec.initContainers", []))
    for index, status in enumerate(dig(pod, "status.initContainerStatuses", [])):
        state: dict[str, Any] = status.get("state") or {}
        terminated = state.get("terminated")
        if terminated is not None and terminated.get("exitCode", 0) == 0:
            continue
        if status.get("name") in sidecars and status.get("started"):
            continue
        if terminated is not None:
            return f"Init:{_exit_text(terminated)}"
        waiting = (state.get("waiting") or {}).get("reason", "")
        return f"Init:{waiting}" if waiting and waiting != "PodInitializing" else f"Init:{index}/{total}"
    return None


def _initialized(pod: Object) -> bool:
    conditions = dig(pod, "status.conditions", [])
    return any(c.get("type") == "Initialized" and c.get("status") == "True" for c in conditions)


def status_text(pod: Object) -> str:
    """The STATUS column."""
    reason = str(dig(pod, "status.reason") or dig(pod, "status.phase") or "Unknown")
    for condition in dig(pod, "status.conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    initializing = _initializing(pod)
    still_initializing = initializing is not None and not _initialized(pod)
    reason = str(initializing) if still_initializing else _running_text(pod, reason)
    if dig(pod, "metadata.deletionTimestamp"):
        if dig(pod, "status.reason") == "NodeLost":
            return "Unknown"
        if dig(pod, "status.phase") not in ("Failed", "Succeeded"):
            return "Terminating"
    return reason


def _running_text(pod: Object, reason: str) -> str:
    has_running = False
    for status in reversed(dig(pod, "status.containerStatuses", [])):
        state: dict[str, Any] = status.get("state") or {}
        waiting, terminated = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated is not None:
            reason = _exit_text(terminated)
        elif status.get("ready") and state.get("running") is not None:
            has_running = True
    if reason == "Completed" and has_running:
        conditions = dig(pod, "status.conditions", [])
        is_ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
        return "Running" if is_ready else "NotReady"
    return reason
