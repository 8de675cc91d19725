"""HorizontalPodAutoscalers: stored as autoscaling/v2, shown as v1 as well.

What v1 has no field for rides in annotations, as upstream's conversion has it, so that a round trip loses nothing.
"""

from dataclasses import replace
from typing import Any, Final

import orjson

from controller.kinds import rules
from controller.kinds.columns import AGE, at, computed, dig
from controller.kinds.kind import Kind, Object, ResourceKey, Stored
from controller.kinds.rules import Errors, invalid, required

_KEY: Final = ResourceKey("autoscaling", "horizontalpodautoscalers")
_CPU: Final = "targetCPUUtilizationPercentage"
_METRICS: Final = "autoscaling.alpha.kubernetes.io/metrics"
_BEHAVIOR: Final = "autoscaling.alpha.kubernetes.io/behavior"
_CURRENT: Final = "autoscaling.alpha.kubernetes.io/current-metrics"
_CONDITIONS: Final = "autoscaling.alpha.kubernetes.io/conditions"
_DEFAULT_PERCENT: Final = 80


def _cpu_metric(percent: int) -> Object:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def _default(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        spec["metrics"] = [_cpu_metric(_DEFAULT_PERCENT)]


def _default_v1(obj: Object) -> None:
    obj.setdefault("spec", {}).setdefault("minReplicas", 1)


def _validate(obj: Object) -> Errors:
    spec = obj.get("spec") or {}
    errors: Errors = []
    for key in ("kind", "name"):
        if not dig(spec, f"scaleTargetRef.{key}"):
            errors.append(required(f"spec.scaleTargetRef.{key}"))
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if least is not None and least < 1:
        errors.append(invalid("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        errors.append(invalid("spec.maxReplicas", most, "must be greater than 0"))
    elif least is not None and most < least:
        errors.append(invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    percent = spec.get(_CPU)
    if percent is not None and percent < 1:
        errors.append(invalid(f"spec.{_CPU}", percent, "must be greater than 0"))
    for index, metric in enumerate(spec.get("metrics") or []):
        kinds = ("ContainerResource", "External", "Object", "Pods", "Resource")
        errors += rules.one_of(f"spec.metrics[{index}].type", metric.get("type"), kinds)
    return errors


def _utilization(metric: Object, part: str) -> Any:
    """Percent of a plain cpu metric; None of any other."""
    if metric.get("type") != "Resource" or dig(metric, "resource.name") != "cpu":
        return None
    return dig(metric, f"resource.{part}.averageUtilization")


def _pack(obj: Object, name: str, value: Any) -> None:
    if value:
        obj["metadata"] = {**obj["metadata"], "annotations": {**(obj["metadata"].get("annotations") or {})}}
        obj["metadata"]["annotations"][name] = orjson.dumps(value).decode()


def _unpack(obj: Object, name: str) -> Any:
    annotations = dict(obj["metadata"].get("annotations") or {})
    text = annotations.pop(name, None)
    if text is None:
        return None
    obj["metadata"] = {key: value for key, value in obj["metadata"].items() if key != "annotations"}
    if annotations:
        obj["metadata"]["annotations"] = annotations
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def read_v1(obj: Object) -> None:
    """v2 to v1, in place."""
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    obj["spec"], obj["status"] = spec, status
    metrics = spec.pop("metrics", None) or []
    plain = next((each for each in metrics if _utilization(each, "target") is not None), None)
    if plain is not None:
        spec[_CPU] = _utilization(plain, "target")
    _pack(obj, _METRICS, [each for each in metrics if each is not plain])
    _pack(obj, _BEHAVIOR, spec.pop("behavior", None))
    current = status.pop("currentMetrics", None) or []
    shown = next((each for each in current if _utilization(each, "current") is not None), None)
    if shown is not None:
        status["currentCPUUtilizationPercentage"] = _utilization(shown, "current")
    _pack(obj, _CURRENT, [each for each in current if each is not shown])
    _pack(obj, _CONDITIONS, status.pop("conditions", None))


def write_v1(obj: Object) -> None:
    """v1 to v2, in place."""
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    obj["spec"], obj["status"] = spec, status
    metrics = _unpack(obj, _METRICS) or []
    percent = spec.pop(_CPU, None)
    spec["metrics"] = [*([_cpu_metric(percent)] if percent is not None else []), *metrics]
    if not spec["metrics"]:
        spec["metrics"] = [_cpu_metric(_DEFAULT_PERCENT)]
    for field, name, place in (("behavior", _BEHAVIOR, spec), ("conditions", _CONDITIONS, status)):
        found = _unpack(obj, name)
        if found:
            place[field] = found
    current = _unpack(obj, _CURRENT) or []
    now = status.pop("currentCPUUtilizationPercentage", None)
    if now is not None:
        current = [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": now}}}, *current]
    if current:
        status["currentMetrics"] = current


def _targets(obj: Object) -> str:
    """``cpu: 20%/80%`` per metric, as upstream prints it; what is not measured yet is unknown."""
    texts = []
    for metric in dig(obj, "spec.metrics", []):
        wanted = _utilization(metric, "target")
        if wanted is None:
            texts.append("<custom>")
            continue
        found = (_utilization(each, "current") for each in dig(obj, "status.currentMetrics", []))
        have = next((each for each in found if each is not None), None)
        texts.append(f"cpu: {'<unknown>' if have is None else f'{have}%'}/{wanted}%")
    return ", ".join(texts) or "<none>"


def _reference(obj: Object) -> str:
    return f"{dig(obj, 'spec.scaleTargetRef.kind', '')}/{dig(obj, 'spec.scaleTargetRef.name', '')}"


def _targets_v1(obj: Object) -> str:
    copied = {**obj}
    write_v1(copied)
    return _targets(copied)


_COLUMNS: Final = (
    computed("Reference", _reference),
    computed("Targets", _targets),
    at("MinPods", "spec.minReplicas", empty="<unset>"),
    at("MaxPods", "spec.maxReplicas", "integer"),
    at("Replicas", "status.currentReplicas", "integer", empty=0),
    AGE,
)

V2: Final = Kind(
    group="autoscaling",
    version="v2",
    kind="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    schema="io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    singular="horizontalpodautoscaler",
    short_names=("hpa",),
    categories=("all",),
    subresources=("status",),
    columns=_COLUMNS,
    generation_fields=(),
    default=_default,
    validate=_validate,
)

V1: Final = replace(
    V2,
    version="v1",
    schema="io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    columns=(_COLUMNS[0], computed("Targets", _targets_v1), *_COLUMNS[2:]),
    default=_default_v1,
    stored=Stored(_KEY, "autoscaling/v2", read_v1, write_v1),
)

KINDS: Final = (V2, V1)
