"""DaemonSets and StatefulSets, and the revisions of their templates: defaults, validation, columns."""

from typing import Any, Final

from controller.kinds import pod_defaults, rules
from controller.kinds.columns import AGE, SELECTOR, TEMPLATE_CONTAINERS, TEMPLATE_IMAGES, at, computed, dig
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, forbidden, invalid, required
from controller.kinds.workloads import validate_replicated

_ON_DELETE: Final = ("OnDelete", "RollingUpdate")
_MUTABLE: Final = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def _default_daemon_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    strategy = spec.setdefault("updateStrategy", {})
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    pod_defaults.default_template(spec.setdefault("template", {}))


def _default_stateful_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec["podManagementPolicy"] = spec.get("podManagementPolicy") or "OrderedReady"
    strategy = spec.setdefault("updateStrategy", {})
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("partition", 0)
        rolling.setdefault("maxUnavailable", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    pod_defaults.default_template(spec.setdefault("template", {}))


def _reset_daemon_set(obj: Object) -> None:
    names = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
    obj["status"] = dict.fromkeys(names, 0)


def _reset_stateful_set(obj: Object) -> None:
    obj["status"] = {"replicas": 0}


def _number(value: Any) -> int:
    return int(value.rstrip("%")) if isinstance(value, str) else int(value or 0)


def _validate_daemon_set(obj: Object) -> Errors:
    spec = obj.get("spec") or {}
    errors = validate_replicated(obj)
    errors += rules.non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    strategy = spec.get("updateStrategy") or {}
    errors += rules.one_of("spec.updateStrategy.type", strategy.get("type"), _ON_DELETE)
    if strategy.get("type") != "RollingUpdate":
        return errors
    rolling, path = strategy.get("rollingUpdate") or {}, "spec.updateStrategy.rollingUpdate"
    wrong: Errors = []
    for key in ("maxUnavailable", "maxSurge"):
        wrong += rules.int_or_percent(f"{path}.{key}", rolling.get(key))
        if not wrong and isinstance(rolling.get(key), str) and _number(rolling[key]) > 100:
            wrong.append(invalid(f"{path}.{key}", rolling[key], "must not be greater than 100%"))
    if not wrong:
        spare, surge = _number(rolling.get("maxUnavailable")), _number(rolling.get("maxSurge"))
        if spare and surge:
            detail = "may not be set when maxUnavailable is non-zero"
            wrong.append(invalid(f"{path}.maxSurge", rolling["maxSurge"], detail))
        elif not spare and not surge:
            wrong.append(required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return errors + wrong


def _validate_stateful_set(obj: Object) -> Errors:
    spec = obj.get("spec") or {}
    errors = validate_replicated(_with_claims(obj))
    errors += rules.non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    errors += rules.non_negative("spec.ordinals.start", dig(spec, "ordinals.start"))
    errors += rules.one_of("spec.podManagementPolicy", spec.get("podManagementPolicy"), ("OrderedReady", "Parallel"))
    strategy = spec.get("updateStrategy") or {}
    errors += rules.one_of("spec.updateStrategy.type", strategy.get("type"), _ON_DELETE)
    rolling, path = strategy.get("rollingUpdate"), "spec.updateStrategy.rollingUpdate"
    if strategy.get("type") == "OnDelete" and rolling is not None:
        detail = "only allowed for updateStrategy 'RollingUpdate'"
        errors.append(invalid(path, rolling, detail))
    elif rolling:
        errors += rules.non_negative(f"{path}.partition", rolling.get("partition"))
        errors += rules.int_or_percent(f"{path}.maxUnavailable", rolling.get("maxUnavailable"))
        if rolling.get("maxUnavailable") in (0, "0%"):
            errors.append(invalid(f"{path}.maxUnavailable", rolling["maxUnavailable"], "cannot be 0"))
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for key in ("whenDeleted", "whenScaled"):
        where = f"spec.persistentVolumeClaimRetentionPolicy.{key}"
        errors += rules.one_of(where, retention.get(key), ("Delete", "Retain"))
    return errors


def _with_claims(obj: Object) -> Object:
    """The set with the volumes that its pods get from ``volumeClaimTemplates``; containers may mount these."""
    spec = obj.get("spec") or {}
    names = [str(dig(claim, "metadata.name", "")) for claim in spec.get("volumeClaimTemplates") or ()]
    template = spec.get("template") or {}
    pod = template.get("spec")
    if not names or pod is None:
        return obj
    own = [volume for volume in pod.get("volumes") or () if volume.get("name") not in names]
    claimed = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    return {**obj, "spec": {**spec, "template": {**template, "spec": {**pod, "volumes": [*own, *claimed]}}}}


def _selector_immutable(obj: Object, old: Object) -> Errors:
    return rules.immutable("spec.selector", dig(obj, "spec.selector"), dig(old, "spec.selector"))


def _only_some_fields_change(obj: Object, old: Object) -> Errors:
    new_spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
    if any(new_spec.get(key) != old_spec.get(key) for key in {*new_spec, *old_spec} - {*_MUTABLE}):
        names = ", ".join(f"'{name}'" for name in _MUTABLE[:-1])
        text = f"updates to statefulset spec for fields other than {names} and '{_MUTABLE[-1]}' are forbidden"
        return [forbidden("spec", text)]
    return []


def _revision_fixed(obj: Object, old: Object) -> Errors:
    return rules.immutable("data", obj.get("data"), old.get("data"))


DAEMON_SET: Final = Kind(
    group="apps",
    version="v1",
    kind="DaemonSet",
    plural="daemonsets",
    schema="io.k8s.api.apps.v1.DaemonSet",
    singular="daemonset",
    short_names=("ds",),
    categories=("all",),
    subresources=("status",),
    columns=(
        at("Desired", "status.desiredNumberScheduled", "integer", empty=0),
        at("Current", "status.currentNumberScheduled", "integer", empty=0),
        at("Ready", "status.numberReady", "integer", empty=0),
        at("Up-to-date", "status.updatedNumberScheduled", "integer", empty=0),
        at("Available", "status.numberAvailable", "integer", empty=0),
        computed("Node Selector", lambda obj: _node_selector(dig(obj, "spec.template.spec.nodeSelector"))),
        AGE,
        TEMPLATE_CONTAINERS,
        TEMPLATE_IMAGES,
        SELECTOR,
    ),
    default=_default_daemon_set,
    prepare_create=_reset_daemon_set,
    validate=_validate_daemon_set,
    validate_update=_selector_immutable,
)

STATEFUL_SET: Final = Kind(
    group="apps",
    version="v1",
    kind="StatefulSet",
    plural="statefulsets",
    schema="io.k8s.api.apps.v1.StatefulSet",
    singular="statefulset",
    short_names=("sts",),
    categories=("all",),
    subresources=("status", "scale"),
    columns=(
        computed("Ready", lambda obj: f"{dig(obj, 'status.readyReplicas', 0)}/{dig(obj, 'spec.replicas', 0)}"),
        AGE,
        TEMPLATE_CONTAINERS,
        TEMPLATE_IMAGES,
    ),
    default=_default_stateful_set,
    prepare_create=_reset_stateful_set,
    validate=_validate_stateful_set,
    validate_update=_only_some_fields_change,
)

CONTROLLER_REVISION: Final = Kind(
    group="apps",
    version="v1",
    kind="ControllerRevision",
    plural="controllerrevisions",
    schema="io.k8s.api.apps.v1.ControllerRevision",
    singular="controllerrevision",
    columns=(computed("Controller", lambda obj: _controller(obj)), at("Revision", "revision", "integer"), AGE),
    generation_fields=(),
    validate=lambda obj: rules.non_negative("revision", obj.get("revision")),
    validate_update=_revision_fixed,
)


def _node_selector(labels: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def _controller(obj: Object) -> str:
    owner = next((each for each in dig(obj, "metadata.ownerReferences", ()) if each.get("controller")), None)
    if owner is None:
        return "<none>"
    group = str(owner["apiVersion"]).partition("/")[0] if "/" in str(owner["apiVersion"]) else ""
    kind = str(owner["kind"]).lower()
    return f"{kind}.{group}/{owner['name']}" if group else f"{kind}/{owner['name']}"


KINDS: Final = (DAEMON_SET, STATEFUL_SET, CONTROLLER_REVISION)
