"""PodSecurity: pods stay within the level that labels of their namespace set; workloads are warned of what will not.

Spec: https://kubernetes.io/docs/concepts/security/pod-security-admission/
"""

from collections.abc import Mapping
from typing import Final

from controller.api.admission import AdmissionRequest, Lookup
from controller.api.status import ApiError, forbidden, invalid
from controller.kinds.columns import dig
from controller.kinds.kind import FieldError, Object, ResourceKey
from controller.kinds.pod_security import LEVELS, violations

PODS: Final = ResourceKey("", "pods")
NAMESPACES: Final = ResourceKey("", "namespaces")
_PREFIX: Final = "pod-security.kubernetes.io/"
_TEMPLATES: Final = {
    ResourceKey("", "podtemplates"): "template",
    ResourceKey("", "replicationcontrollers"): "spec.template",
    ResourceKey("apps", "daemonsets"): "spec.template",
    ResourceKey("apps", "deployments"): "spec.template",
    ResourceKey("apps", "replicasets"): "spec.template",
    ResourceKey("apps", "statefulsets"): "spec.template",
    ResourceKey("batch", "cronjobs"): "spec.jobTemplate.spec.template",
    ResourceKey("batch", "jobs"): "spec.template",
}


def judge(request: AdmissionRequest, lookup: Lookup) -> None:
    """Raises ``ApiError`` 403 for a pod beyond its namespace's ``enforce`` level, 422 for a level that there is not."""
    key, obj = request.kind.key, request.obj
    if request.operation == "DELETE":
        return
    if key == NAMESPACES:
        _check_labels(obj)
        return
    if (key != PODS and key not in _TEMPLATES) or request.subresource not in ("", "ephemeralcontainers"):
        return
    if request.old is not None and obj.get("spec") == request.old.get("spec"):
        return
    found = lookup(NAMESPACES, "", obj["metadata"].get("namespace", ""))
    if found is None or not any(label.startswith(_PREFIX) for label in found.labels):
        return
    metadata, spec = _pod_of(key, obj)
    enforced, warned = (found.labels.get(f"{_PREFIX}{mode}", "privileged") for mode in ("enforce", "warn"))
    if key == PODS:
        why = violations(enforced, metadata, spec)
        if why:
            raise forbidden(PODS, obj["metadata"].get("name", ""), _text(found.labels, "enforce", enforced, why))
    why = violations(warned, metadata, spec)
    if why:
        request.warnings.append("would violate " + _text(found.labels, "warn", warned, why).removeprefix("violates "))


def _pod_of(key: ResourceKey, obj: Object) -> tuple[Object, Object]:
    pod: Object = obj if key == PODS else dig(obj, _TEMPLATES[key], {})
    return pod.get("metadata") or {}, pod.get("spec") or {}


def _text(labels: Mapping[str, str], mode: str, level: str, why: list[str]) -> str:
    version = labels.get(f"{_PREFIX}{mode}-version", "latest")
    return f'violates PodSecurity "{level}:{version}": {", ".join(why)}'


def _check_labels(namespace: Object) -> None:
    for mode in ("enforce", "audit", "warn"):
        level = (namespace["metadata"].get("labels") or {}).get(f"{_PREFIX}{mode}")
        if level is not None and level not in LEVELS:
            raise _no_level(namespace["metadata"].get("name", ""), mode, level)


def _no_level(name: str, mode: str, level: str) -> ApiError:
    detail = f"must be one of {', '.join(LEVELS)}"
    error = FieldError("FieldValueInvalid", f"metadata.labels[{_PREFIX}{mode}]", detail, level)
    return invalid("", "Namespace", name, [error])
