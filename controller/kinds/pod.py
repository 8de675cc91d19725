"""Pods: strategy, what may change after creation, columns. Defaults and validation are next door."""

from typing import Any, Final

import orjson

from common.quantity import InvalidQuantity, Quantity
from controller.kinds import pod_defaults, pod_subresources, pod_validation
from controller.kinds.columns import AGE, NONE, at, computed, dig, since
from controller.kinds.kind import Column, Kind, Object
from controller.kinds.pod_status import ready, restarts, status_text
from controller.kinds.rules import Errors, forbidden, invalid

_GRACE_S: Final = 30
_GATED: Final = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
}
_IMMUTABLE_DETAIL: Final = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def _default(pod: Object) -> None:
    pod_defaults.default_pod(pod)
    pod_defaults.default_pod_only(pod)


def qos_class(spec: Object) -> str:
    """``Guaranteed``, ``Burstable`` or ``BestEffort`` (``ComputePodQOS``): by amounts, however they are written."""
    some, guaranteed = False, True
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        limits, requests = _compute(resources.get("limits")), _compute(resources.get("requests"))
        some = some or bool(limits or requests)
        if set(limits) != {"cpu", "memory"} or requests != limits:
            guaranteed = False
    if not some:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _compute(amounts: Object | None) -> dict[str, object]:
    """CPU and memory above 0. What is no quantity stays text: it is refused later."""
    found: dict[str, object] = {}
    for name in ("cpu", "memory"):
        text = (amounts or {}).get(name, 0)
        try:
            amount = Quantity.parse(text)
        except InvalidQuantity:
            found[name] = text
            continue
        if amount.nanos > 0:
            found[name] = amount
    return found


def _prepare_create(pod: Object) -> None:
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod.get("spec") or {})}
    if dig(pod, "spec.schedulingGates"):
        pod["status"]["conditions"] = [dict(_GATED)]


def _prepare_update(pod: Object, old: Object) -> None:
    pod["status"] = orjson.loads(orjson.dumps(old.get("status") or {}))


def _validate(pod: Object) -> Errors:
    return pod_validation.validate_pod_spec(pod.get("spec") or {})


def _validate_create(pod: Object) -> Errors:
    spec = pod.get("spec") or {}
    return [forbidden("spec.ephemeralContainers", "cannot be set on create")] if spec.get("ephemeralContainers") else []


def _validate_update(pod: Object, old: Object) -> Errors:
    """Only images, the deadline, added tolerations and scheduling-gate removal may change."""
    new_spec: Object = orjson.loads(orjson.dumps(pod.get("spec") or {}))
    old_spec: Object = orjson.loads(orjson.dumps(old.get("spec") or {}))
    errors: Errors = []
    for key in ("containers", "initContainers"):
        new_list, old_list = new_spec.get(key) or [], old_spec.get(key) or []
        if len(new_list) != len(old_list):
            errors.append(forbidden(f"spec.{key}", "pod updates may not add or remove containers"))
            return errors
        for mine, theirs in zip(new_list, old_list, strict=True):
            mine["image"] = theirs.get("image")
    new_deadline, old_deadline = (
        new_spec.pop("activeDeadlineSeconds", None),
        old_spec.pop("activeDeadlineSeconds", None),
    )
    if old_deadline is not None and new_deadline != old_deadline:
        if new_deadline is None:
            errors.append(
                invalid("spec.activeDeadlineSeconds", None, "must not update from a positive integer to nil value")
            )
        elif new_deadline > old_deadline:
            detail = "must be less than or equal to previous value"
            errors.append(invalid("spec.activeDeadlineSeconds", new_deadline, detail))
    new_tolerations, old_tolerations = new_spec.pop("tolerations", []), old_spec.pop("tolerations", [])
    kept = [_lasting(each) for each in new_tolerations]
    if any(_lasting(each) not in kept for each in old_tolerations):
        errors.append(
            forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
        )
    if old_spec.get("schedulingGates"):
        new_gates, old_gates = new_spec.pop("schedulingGates", []), old_spec.pop("schedulingGates")
        if any(gate not in old_gates for gate in new_gates):
            errors.append(forbidden("spec.schedulingGates", "only deletion is allowed, but found new scheduling gate"))
    if new_spec != old_spec:
        errors.append(forbidden("spec", f"{_IMMUTABLE_DETAIL}\n{_difference(old_spec, new_spec)}"))
    return errors


def _lasting(toleration: Object) -> Object:
    """What of a toleration may not change."""
    return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}


def _difference(old: Object, new: Object) -> str:
    changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return "changed: " + ", ".join(f"spec.{key}" for key in changed)


def _grace(pod: Object) -> int:
    spec = pod.get("spec") or {}
    if not spec.get("nodeName") or dig(pod, "status.phase") in ("Succeeded", "Failed"):
        return 0
    grace = spec.get("terminationGracePeriodSeconds")
    return _GRACE_S if grace is None else max(int(grace), 1)


def _restarts_cell(pod: Object, now: float) -> str:
    number, last = restarts(pod)
    return f"{number} ({since(last, now)} ago)" if number and last else str(number)


def _gates(pod: Object) -> str:
    gates = dig(pod, "spec.readinessGates", [])
    if not gates:
        return NONE
    true = {c.get("type") for c in dig(pod, "status.conditions", []) if c.get("status") == "True"}
    return f"{sum(1 for gate in gates if gate.get('conditionType') in true)}/{len(gates)}"


def _ip(pod: Object) -> str:
    ips = dig(pod, "status.podIPs", [])
    return (ips[0].get("ip") if ips else dig(pod, "status.podIP", "")) or NONE


def _text(path: str) -> Any:
    return lambda obj: str(dig(obj, path, ""))


POD: Final = Kind(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    schema="io.k8s.api.core.v1.Pod",
    singular="pod",
    short_names=("po",),
    categories=("all",),
    subresources=(
        "status",
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "log",
        "portforward",
        "proxy",
        "resize",
    ),
    columns=(
        computed("Ready", ready),
        computed("Status", status_text),
        Column("Restarts", "string", _restarts_cell),
        AGE,
        computed("IP", _ip, priority=1),
        at("Node", "spec.nodeName", priority=1, empty=NONE),
        at("Nominated Node", "status.nominatedNodeName", priority=1, empty=NONE),
        computed("Readiness Gates", _gates, priority=1),
    ),
    selectable_fields={
        "spec.nodeName": _text("spec.nodeName"),
        "spec.restartPolicy": _text("spec.restartPolicy"),
        "spec.schedulerName": _text("spec.schedulerName"),
        "spec.serviceAccountName": _text("spec.serviceAccountName"),
        "spec.hostNetwork": lambda obj: str(bool(dig(obj, "spec.hostNetwork"))).lower(),
        "status.phase": _text("status.phase"),
        "status.podIP": _text("status.podIP"),
        "status.nominatedNodeName": _text("status.nominatedNodeName"),
    },
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=_validate,
    validate_create=_validate_create,
    validate_update=_validate_update,
    subwrites=pod_subresources.subwrites(qos_class),
    grace_s=_grace,
)

KINDS: Final = (POD,)
