"""Deployments, ReplicaSets and ReplicationControllers: defaults, validation, columns."""

from typing import Any, Final

from controller.kinds import pod_defaults, pod_validation, rules
from controller.kinds.columns import (
    AGE,
    SELECTOR,
    TEMPLATE_CONTAINERS,
    TEMPLATE_IMAGES,
    at,
    computed,
    dig,
    format_labels,
)
from controller.kinds.kind import Kind, Object, Subwrite
from controller.kinds.rules import Errors, forbidden, invalid, required


def _default_deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    pod_defaults.default_template(spec.setdefault("template", {}))


def _default_replicaset(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    pod_defaults.default_template(spec.setdefault("template", {}))


def _default_replication_controller(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    if "template" not in spec:
        return
    labels = dig(spec, "template.metadata.labels", {})
    if labels and not spec.get("selector"):
        spec["selector"] = dict(labels)
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)
    pod_defaults.default_template(spec["template"])


def _reset_status(obj: Object) -> None:
    obj["status"] = {}


def _reset_replicaset_status(obj: Object) -> None:
    obj["status"] = {"replicas": 0}


def validate_selector(spec: Object) -> Errors:
    """Selector present, valid, not empty, and matching the template's labels."""
    selector = spec.get("selector")
    if selector is None:
        return [required("spec.selector")]
    errors = rules.label_selector("spec.selector", selector)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        errors.append(invalid("spec.selector", selector, "empty selector is invalid for deployment"))
    labels = dig(spec, "template.metadata.labels", {})
    if not errors and not rules.selects(selector, labels):
        errors.append(invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    return errors


def validate_replicated(obj: Object) -> Errors:
    """What all workloads that keep pods running have in common."""
    spec = obj.get("spec") or {}
    return _validate_numbers(spec) + validate_selector(spec) + _validate_lasting(spec.get("template") or {})


def _validate_replication_controller(obj: Object) -> Errors:
    spec = obj.get("spec") or {}
    errors = _validate_numbers(spec)
    selector, template = spec.get("selector"), spec.get("template")
    if not selector:
        errors.append(required("spec.selector"))
    if template is None:
        return [*errors, required("spec.template")]
    labels = dig(template, "metadata.labels", {})
    if selector and not rules.selects({"matchLabels": selector}, labels):
        errors.append(invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    return errors + _validate_lasting(template)


def _validate_numbers(spec: Object) -> Errors:
    errors = rules.non_negative("spec.replicas", spec.get("replicas"))
    return errors + rules.non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))


def _validate_lasting(template: Object) -> Errors:
    """A template of pods that run for good."""
    errors = pod_validation.validate_template(template, "spec.template")
    policy = dig(template, "spec.restartPolicy")
    if policy in ("OnFailure", "Never"):
        errors.append(rules.not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    if dig(template, "spec.activeDeadlineSeconds") is not None:
        errors.append(
            forbidden(
                "spec.template.spec.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported"
            )
        )
    return errors


def _validate_deployment(obj: Object) -> Errors:
    spec = obj.get("spec") or {}
    errors = validate_replicated(obj)
    errors += _validate_strategy(spec.get("strategy") or {})
    errors += rules.non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    errors += rules.non_negative("spec.progressDeadlineSeconds", deadline)
    if isinstance(deadline, int) and 0 <= deadline <= (spec.get("minReadySeconds") or 0):
        errors.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return errors


def _validate_strategy(strategy: Object) -> Errors:
    path, rolling = "spec.strategy.rollingUpdate", strategy.get("rollingUpdate")
    match strategy.get("type"):
        case "Recreate":
            detail = "may not be specified when strategy `type` is 'Recreate'"
            return [forbidden(path, detail)] if rolling is not None else []
        case "RollingUpdate":
            if rolling is None:
                return [required(path, "this should be defaulted and never be nil")]
        case other:
            return rules.one_of("spec.strategy.type", other, ("Recreate", "RollingUpdate"))
    errors: Errors = []
    for key in ("maxUnavailable", "maxSurge"):
        errors += rules.int_or_percent(f"{path}.{key}", rolling.get(key))
    if not errors and _number(rolling.get("maxUnavailable")) == 0 and _number(rolling.get("maxSurge")) == 0:
        detail = "may not be 0 when `maxSurge` is 0"
        errors.append(invalid(f"{path}.maxUnavailable", rolling.get("maxUnavailable"), detail))
    unavailable = rolling.get("maxUnavailable")
    if isinstance(unavailable, str) and not errors and _number(unavailable) > 100:
        errors.append(invalid(f"{path}.maxUnavailable", unavailable, "must not be greater than 100%"))
    return errors


def _number(value: Any) -> int:
    return int(value.rstrip("%")) if isinstance(value, str) else int(value or 0)


def _confine_deployment_status(new: Object, old: Object) -> None:
    """Of all workloads, only a Deployment's status does not take labels along: it hands them on to ReplicaSets."""
    labels = old["metadata"].get("labels")
    if labels is None:
        new["metadata"].pop("labels", None)
    else:
        new["metadata"]["labels"] = dict(labels)


def _selector_immutable(obj: Object, old: Object) -> Errors:
    return rules.immutable("spec.selector", dig(obj, "spec.selector"), dig(old, "spec.selector"))


def _deployment_ready(obj: Object) -> str:
    return f"{dig(obj, 'status.readyReplicas', 0)}/{dig(obj, 'spec.replicas', 0)}"


DEPLOYMENT: Final = Kind(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    schema="io.k8s.api.apps.v1.Deployment",
    singular="deployment",
    short_names=("deploy",),
    categories=("all",),
    subresources=("status", "scale"),
    columns=(
        computed("Ready", _deployment_ready),
        at("Up-to-date", "status.updatedReplicas", "integer", empty=0),
        at("Available", "status.availableReplicas", "integer", empty=0),
        AGE,
        TEMPLATE_CONTAINERS,
        TEMPLATE_IMAGES,
        SELECTOR,
    ),
    default=_default_deployment,
    prepare_create=_reset_status,
    validate=_validate_deployment,
    validate_update=_selector_immutable,
    subwrites={"status": Subwrite(_confine_deployment_status, lambda new, old: [])},
)

_REPLICA_COLUMNS: Final = (
    at("Desired", "spec.replicas", "integer", empty=0),
    at("Current", "status.replicas", "integer", empty=0),
    at("Ready", "status.readyReplicas", "integer", empty=0),
    AGE,
    TEMPLATE_CONTAINERS,
    TEMPLATE_IMAGES,
)

REPLICA_SET: Final = Kind(
    group="apps",
    version="v1",
    kind="ReplicaSet",
    plural="replicasets",
    schema="io.k8s.api.apps.v1.ReplicaSet",
    singular="replicaset",
    short_names=("rs",),
    categories=("all",),
    subresources=("status", "scale"),
    columns=(
        *_REPLICA_COLUMNS,
        SELECTOR,
    ),
    selectable_fields={"status.replicas": lambda obj: str(dig(obj, "status.replicas", 0))},
    default=_default_replicaset,
    prepare_create=_reset_replicaset_status,
    validate=validate_replicated,
    validate_update=_selector_immutable,
)

REPLICATION_CONTROLLER: Final = Kind(
    group="",
    version="v1",
    kind="ReplicationController",
    plural="replicationcontrollers",
    schema="io.k8s.api.core.v1.ReplicationController",
    singular="replicationcontroller",
    short_names=("rc",),
    categories=("all",),
    subresources=("status", "scale"),
    columns=(
        *_REPLICA_COLUMNS,
        computed("Selector", lambda obj: format_labels(dig(obj, "spec.selector")), priority=1),
    ),
    selectable_fields={"status.replicas": lambda obj: str(dig(obj, "status.replicas", 0))},
    default=_default_replication_controller,
    prepare_create=_reset_replicaset_status,
    validate=_validate_replication_controller,
)

KINDS: Final = (DEPLOYMENT, REPLICA_SET, REPLICATION_CONTROLLER)
