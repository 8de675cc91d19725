"""Nodes."""

from typing import Any, Final

from controller.kinds import rules
from controller.kinds.columns import AGE, NONE, UNKNOWN, at, computed, dig
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, forbidden, required

_ROLE_PREFIX: Final = "node-role.kubernetes.io/"


def _status(node: Object) -> str:
    ready = next((c for c in dig(node, "status.conditions", []) if c.get("type") == "Ready"), None)
    text = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return f"{text},SchedulingDisabled" if dig(node, "spec.unschedulable") else text


def _roles(node: Object) -> str:
    roles = set()
    for key, value in dig(node, "metadata.labels", {}).items():
        if key.startswith(_ROLE_PREFIX) and key != _ROLE_PREFIX:
            roles.add(key.removeprefix(_ROLE_PREFIX))
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    return ",".join(sorted(roles)) or NONE


def _address(kind: str) -> Any:
    def cell(node: Object) -> str:
        found = (a.get("address") for a in dig(node, "status.addresses", []) if a.get("type") == kind)
        return next(found, None) or NONE

    return cell


def _validate(node: Object) -> Errors:
    errors: Errors = []
    seen: set[tuple[Any, Any]] = set()
    for index, taint in enumerate(dig(node, "spec.taints", [])):
        here = f"spec.taints[{index}]"
        if not taint.get("key"):
            errors.append(required(f"{here}.key"))
        else:
            errors += [rules.invalid(f"{here}.key", taint["key"], t) for t in rules.qualified_problems(taint["key"])]
        errors += [
            rules.invalid(f"{here}.value", taint.get("value"), t)
            for t in rules.label_value_problems(taint.get("value") or "")
        ]
        errors += rules.one_of(f"{here}.effect", taint.get("effect"), ("NoExecute", "NoSchedule", "PreferNoSchedule"))
        if (taint.get("key"), taint.get("effect")) in seen:
            errors.append(rules.duplicate(here, taint))
        seen.add((taint.get("key"), taint.get("effect")))
    for key in ("capacity", "allocatable"):
        for name, amount in dig(node, f"status.{key}", {}).items():
            errors += rules.quantity(f"status.{key}.{name}", amount)
    return errors


def _validate_update(node: Object, old: Object) -> Errors:
    errors: Errors = []
    for key in ("podCIDR", "providerID"):
        was = dig(old, f"spec.{key}")
        if was and dig(node, f"spec.{key}") != was:
            errors.append(forbidden(f"spec.{key}", "node updates may not change " + key + ' except from "" to valid'))
    return errors


NODE: Final = Kind(
    group="",
    version="v1",
    kind="Node",
    plural="nodes",
    schema="io.k8s.api.core.v1.Node",
    namespaced=False,
    singular="node",
    short_names=("no",),
    subresources=("status", "proxy"),
    columns=(
        computed("Status", _status),
        computed("Roles", _roles),
        AGE,
        at("Version", "status.nodeInfo.kubeletVersion"),
        computed("Internal-IP", _address("InternalIP"), priority=1),
        computed("External-IP", _address("ExternalIP"), priority=1),
        at("OS-Image", "status.nodeInfo.osImage", priority=1, empty=UNKNOWN),
        at("Kernel-Version", "status.nodeInfo.kernelVersion", priority=1, empty=UNKNOWN),
        at("Container-Runtime", "status.nodeInfo.containerRuntimeVersion", priority=1, empty=UNKNOWN),
    ),
    generation_fields=(),
    selectable_fields={"spec.unschedulable": lambda obj: str(bool(dig(obj, "spec.unschedulable"))).lower()},
    validate=_validate,
    validate_update=_validate_update,
)

KINDS: Final = (NODE,)
