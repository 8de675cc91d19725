"""PriorityClasses: what a name of a priority stands for; it may not come to mean another."""

from typing import Final

from controller.kinds import rules
from controller.kinds.columns import AGE, at
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, forbidden

SYSTEM: Final = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
"""The classes that every cluster has, above what users may define."""
USER_MAX: Final = 1_000_000_000


def _default(obj: Object) -> None:
    obj.setdefault("value", 0)
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _validate(obj: Object) -> Errors:
    name, value = obj["metadata"].get("name", ""), obj.get("value", 0)
    errors = rules.one_of("preemptionPolicy", obj.get("preemptionPolicy"), ("Never", "PreemptLowerPriority"))
    if name.startswith("system-"):
        if SYSTEM.get(name) != value or obj.get("globalDefault"):
            text = "priority class names with 'system-' prefix are reserved for system use only. error: "
            errors.append(forbidden("metadata.name", f"{text}{_why_not_system(name)}"))
    elif value > USER_MAX:
        errors.append(forbidden("value", f"maximum allowed value of a user defined priority is {USER_MAX}"))
    return errors


def _why_not_system(name: str) -> str:
    if name not in SYSTEM:
        return f"{name} is not a known system priority class"
    return f"value of {name} PriorityClass must be {SYSTEM[name]}, and it is not the global default"


def _validate_update(obj: Object, old: Object) -> Errors:
    changed = obj.get("value", 0) != old.get("value", 0)
    errors = [forbidden("value", "may not be changed in an update.")] if changed else []
    before = old.get("preemptionPolicy") or "PreemptLowerPriority"
    return errors + rules.immutable("preemptionPolicy", obj.get("preemptionPolicy"), before)


KINDS: Final = (
    Kind(
        group="scheduling.k8s.io",
        version="v1",
        kind="PriorityClass",
        plural="priorityclasses",
        schema="io.k8s.api.scheduling.v1.PriorityClass",
        namespaced=False,
        singular="priorityclass",
        short_names=("pc",),
        columns=(
            at("Value", "value", "integer"),
            at("Global-Default", "globalDefault", "boolean", empty=False),
            AGE,
            at("PreemptionPolicy", "preemptionPolicy"),
        ),
        generation_fields=("value",),
        default=_default,
        validate=_validate,
        validate_update=_validate_update,
    ),
)
