"""The status of a pod as Kubernetes defines it. Pure: what it says depends only on what it is given."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.clock import rfc3339
from spherelet import lifecycle
from spherelet.model import ContainerState, ContainerView, Exit, Failure, Object, Observed, PodView, Role
from spherelet.plan import backing_off
from spherelet.runtime.cgroups import qos
from spherelet.volumes.images import failure_of

ID_PREFIX = "sphere://"
_OVER = ("Succeeded", "Failed")
_KINDS = ("limits", "requests")
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


RESIZING = "PodResizeInProgress"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a status needs to know besides the pod."""

    host_address: str
    started_at: float
    """When this host first saw the pod."""
    now: float
    messages: Mapping[str, str]
    """Termination messages by container id."""


def status(want: PodView, seen: Observed, around: Surroundings) -> Object:
    """The whole ``status`` that spherelet owns."""
    outcome = lifecycle.outcome(want, seen, around.now)
    if outcome is not None and want.status.get("phase") not in _OVER and lifecycle.inhabited(seen):
        outcome = None  # who hears that a pod is over counts on it that nothing of it runs any more
    phase = outcome[0] if outcome else _phase(want, seen)
    result: Object = {
        "phase": phase,
        "conditions": _conditions(want, seen, around, phase),
        "hostIP": around.host_address,
        "hostIPs": [{"ip": around.host_address}],
        "startTime": want.status.get("startTime") or rfc3339(around.started_at),
        "qosClass": want.status.get("qosClass") or qos(want.spec),
    }
    if not outcome or seen.containers or seen.sandbox or want.status.get("containerStatuses"):
        for key, views in zip(_STATUSES, (want.main, want.init, want.ephemeral), strict=True):
            if views:
                result[key] = [_container(want, each, seen, around) for each in views]
    if outcome and outcome[1]:
        result |= {"reason": outcome[1], "message": outcome[2]}
    address = seen.sandbox.address if seen.sandbox else want.status.get("podIP") or ""
    if address and (not want.host_network or seen.sandbox):
        result |= {"podIP": address, "podIPs": [{"ip": address}]}
    generation = want.metadata.get("generation")
    if generation is not None:
        result["observedGeneration"] = generation
    return result


def statuses(body: Object) -> list[Object]:
    """The statuses of all containers in a pod's status."""
    return [each for key in _STATUSES for each in body.get(key) or ()]


def is_ready(body: Object) -> bool:
    """Whether a status (or part of one) says ``Ready``."""
    return any(each["type"] == "Ready" and each["status"] == "True" for each in body.get("conditions") or ())


def differs(old: Object, new: Object) -> bool:
    """Whether ``new`` says anything that ``old`` (what the API has) does not, or that a resize is over."""
    if _has_condition(old, RESIZING) and not _has_condition(new, RESIZING):
        return True
    have = {each["type"]: _plain(each) for each in old.get("conditions") or ()}
    if any(have.get(each["type"]) != _plain(each) for each in new["conditions"]):
        return True
    return any(bool(old.get(key) != value) for key, value in new.items() if key != "conditions")


def _has_condition(body: Object, kind: str) -> bool:
    return any(each["type"] == kind for each in body.get("conditions") or ())


def _plain(condition: Object) -> Object:
    return {key: value for key, value in condition.items() if value is not None}


def urgent(old: Object | None, new: Object) -> bool:
    """Whether a change must not wait to be joined with the next one: phase, readiness, an end or a restart."""
    if old is None:
        return str(new["phase"]) != "Pending"
    return _essence(old) != _essence(new)


def _essence(body: Object) -> object:
    containers = statuses(body)
    return (
        body.get("phase"),
        is_ready(body),
        ["running" in each["state"] for each in body.get("ephemeralContainerStatuses") or ()],
        [(each["name"], each["ready"], each["restartCount"], "terminated" in each["state"]) for each in containers],
        [(each["name"], _reason(each)) for each in containers if _reason(each) not in _QUIET],
    )


_QUIET = (None, "ContainerCreating", "PodInitializing")


def _reason(container: Object) -> str | None:
    return (container["state"].get("waiting") or {}).get("reason")


def _phase(want: PodView, seen: Observed) -> str:
    if want.deleting and not lifecycle.inhabited(seen):
        return "Succeeded" if all(lifecycle.succeeded(seen.last(each.name)) for each in want.main) else "Failed"
    if not lifecycle.initialized(want, seen):
        return "Pending"
    lasts = [seen.last(each.name) for each in want.main]
    if any(last is None or last.started_at == 0 for last in lasts):
        # A restarted container does not make the pod Pending again: an earlier attempt counts.
        names = [each.name for each in want.main]
        if not all(any(a.started_at for a in seen.containers.get(name, ())) for name in names):
            return "Pending"
    return "Running"


def _conditions(want: PodView, seen: Observed, around: Surroundings, phase: str) -> list[Object]:
    over = phase in _OVER
    unready = sorted(each.name for each in want.main if not lifecycle.ready(each, seen.last(each.name), seen))
    unready += [
        each.name
        for each in want.init
        if each.role is Role.SIDECAR and not lifecycle.ready(each, seen.last(each.name), seen)
    ]
    sandbox = seen.sandbox is not None and bool(seen.sandbox.address)
    initialized = lifecycle.initialized(want, seen) or phase == "Succeeded"
    wanted: dict[str, tuple[bool, str, str]] = {
        "PodReadyToStartContainers": (sandbox, "", ""),
        "Initialized": (initialized, "ContainersNotInitialized", _incomplete(want, seen)),
        "PodScheduled": (True, "", ""),
    }
    if over:
        reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        wanted["Ready"] = wanted["ContainersReady"] = (False, reason, "")
        if phase == "Succeeded":
            wanted["Initialized"] = (True, reason, "")
    else:
        text = f"containers with unready status: [{' '.join(unready)}]"
        wanted["ContainersReady"] = (not unready, "ContainersNotReady", text)
        wanted["Ready"] = wanted["ContainersReady"]
        gates = _closed_gates(want)
        if not unready and gates:
            wanted["Ready"] = (False, "ReadinessGatesNotReady", gates)
    resizing = _resizing(want, seen)
    shown = CONDITIONS if resizing is None else (*CONDITIONS, RESIZING)
    if resizing is not None:
        wanted[RESIZING] = resizing
    return [_condition(want, kind, *wanted[kind], around=around) for kind in shown]


def _resizing(want: PodView, seen: Observed) -> tuple[bool, str, str] | None:
    """That other resources are still to be had, and why they are not yet; None if nothing is to be changed."""
    late = [each for each in want.main + want.init if (last := seen.last(each.name)) and lifecycle.resized(each, last)]
    if not late:
        return None
    errors = [failed.message for each in late if (failed := seen.container_failures.get(each.name))]
    return True, "Error" if errors else "", "; ".join(errors)


def _condition(want: PodView, kind: str, true: bool, reason: str, message: str, *, around: Surroundings) -> Object:
    value = "True" if true else "False"
    old = next((each for each in want.status.get("conditions") or () if each["type"] == kind), None)
    changed = old.get("lastTransitionTime") if old and old.get("status") == value else None
    result: Object = {
        "type": kind,
        "status": value,
        "lastProbeTime": None,
        "lastTransitionTime": changed or rfc3339(around.now),
    }
    if want.metadata.get("generation") is not None:
        result["observedGeneration"] = want.metadata["generation"]
    if not true or reason == "PodCompleted" or kind == RESIZING:
        if reason:
            result["reason"] = reason
        if message:
            result["message"] = message
    return result


def _incomplete(want: PodView, seen: Observed) -> str:
    names = [each.name for each in want.init if not lifecycle.prepared(each, seen)]
    return f"containers with incomplete status: [{' '.join(names)}]"


def _closed_gates(want: PodView) -> str:
    found = {each["type"]: each["status"] for each in want.status.get("conditions") or ()}
    closed = [
        each["conditionType"]
        for each in want.spec.get("readinessGates") or ()
        if found.get(each["conditionType"]) != "True"
    ]
    return ", ".join(
        f'corresponding condition of pod readiness gate "{each}" does not exist or is not True' for each in closed
    )


def _container(want: PodView, container: ContainerView, seen: Observed, around: Surroundings) -> Object:
    every = seen.containers.get(container.name, ())
    # An attempt that is being made counts once it runs: who sees a restart counted may expect to see it running.
    attempts = [each for each in every if each.started_at] or [each for each in every if each.exit is None]
    last = attempts[-1] if attempts else None
    old = _old(want, container)
    image = seen.images.get(container.name)
    result: Object = {
        "name": container.name,
        "image": last.image if last else container.image,
        "imageID": last.image_id if last else image.reference if image else old.get("imageID", ""),
        "ready": lifecycle.ready(container, last, seen),
        "started": bool(last and lifecycle.started(container, last, seen)),
        "restartCount": last.attempt if last else old.get("restartCount", 0),
        "state": _state(want, container, last, seen, around),
        "lastState": {},
    }
    if last and last.started_at:
        result["containerID"] = ID_PREFIX + last.id
    elif old.get("containerID"):
        result["containerID"] = old["containerID"]
    if container.role is not Role.EPHEMERAL:
        result |= _amounts(container, last)
    ended = next((each for each in reversed(attempts) if each.exit and each.started_at), None)
    if ended is not None and "terminated" not in result["state"]:
        result["lastState"] = {"terminated": _terminated(ended, around)}
    elif ended is not None and len(attempts) > 1 and attempts[-2].exit:
        result["lastState"] = {"terminated": _terminated(attempts[-2], around)}
    if last is None and (old.get("state") or {}).get("terminated") and "waiting" not in result["state"]:
        result["state"] = old["state"]
    return result


def _amounts(container: ContainerView, last: ContainerState | None) -> Object:
    """What the container may have (``allocatedResources``), and what of CPU and memory it has (``resources``)."""
    given = container.spec.get("resources") or {}
    have = json.loads(last.resources) if last and last.running and last.resources else {}
    shown: Object = {}
    wanted = {kind: {name: str(each) for name, each in (given.get(kind) or {}).items()} for kind in _KINDS}
    for kind, values in wanted.items():
        other = {name: value for name, value in values.items() if name not in ("cpu", "memory")}
        values = {**other, **have[kind]} if have else values
        if values:
            shown[kind] = values
    return {"resources": shown, **({"allocatedResources": wanted["requests"]} if wanted["requests"] else {})}


def _old(want: PodView, container: ContainerView) -> Object:
    key = {Role.MAIN: _STATUSES[0], Role.EPHEMERAL: _STATUSES[2]}.get(container.role, _STATUSES[1])
    return next((each for each in want.status.get(key) or () if each["name"] == container.name), {})


def _state(
    want: PodView, container: ContainerView, last: ContainerState | None, seen: Observed, around: Surroundings
) -> Object:
    if last is not None and last.running:
        return {"running": {"startedAt": rfc3339(last.started_at)}}
    if last is not None and last.exit is not None and last.started_at:
        failure = _failure(want, container, seen)
        goes_on = not want.deleting and lifecycle.outcome(want, seen, around.now) is None
        if goes_on and lifecycle.restarts(want, container, last):
            if failure is not None:
                return {"waiting": {"reason": failure.reason, "message": failure.message}}
            wait_s = backing_off(want, container, seen, around.now)
            if wait_s > 0:
                text = f"back-off {_duration(last.backoff_s)} restarting failed container={container.name} pod="
                text += f"{want.name}_{want.namespace}({want.uid})"
                return {"waiting": {"reason": "CrashLoopBackOff", "message": text}}
        return {"terminated": _terminated(last, around)}
    old = _old(want, container).get("state") or {}
    if "terminated" in old and last is None and (want.deleting or want.status.get("phase") in _OVER):
        return old
    over = lifecycle.outcome(want, seen, around.now) is not None and not lifecycle.inhabited(seen)
    if last is None and over and lifecycle.initialized(want, seen):
        return {"terminated": dict(_NEVER_RAN)}
    failure = _failure(want, container, seen)
    if failure is not None:
        return {"waiting": {"reason": failure.reason, "message": failure.message}}
    return {"waiting": {"reason": "PodInitializing" if want.init else "ContainerCreating"}}


_NEVER_RAN = {
    "exitCode": 137,
    "reason": "ContainerStatusUnknown",
    "message": "The container could not be located when the pod was terminated",
}


def _failure(want: PodView, container: ContainerView, seen: Observed) -> Failure | None:
    return failure_of(want, container, seen) or seen.container_failures.get(container.name)


def _terminated(state: ContainerState, around: Surroundings) -> Object:
    ended: Exit | None = state.exit
    assert ended is not None
    result: Object = {
        "exitCode": ended.code,
        "reason": ended.reason,
        "startedAt": rfc3339(state.started_at) if state.started_at else None,
        "finishedAt": rfc3339(ended.finished_at),
        "containerID": ID_PREFIX + state.id,
    }
    message = around.messages.get(state.id) or ended.message
    if message:
        result["message"] = message
    return result


def _duration(seconds: float) -> str:
    """Go's ``time.Duration`` text of whole seconds: ``10s``, ``1m20s``."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def patch(want: PodView, body: Object) -> dict[str, Any]:
    """Strategic merge patch of ``/status``: conditions merge by type, so that other writers' stay."""
    if _has_condition(want.status, RESIZING) and not _has_condition(body, RESIZING):
        body = {**body, "conditions": [*body["conditions"], {"type": RESIZING, "$patch": "delete"}]}
    return {"metadata": {"uid": want.uid}, "status": body}
