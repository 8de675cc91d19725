"""RuntimeClass: a pod that names one gets its overhead and goes where its runtime is. Pure.

Spec: ``plugin/pkg/admission/runtimeclass``.
"""

from typing import Final

from controller.api.admission import AdmissionRequest, Lookup
from controller.api.status import ApiError, forbidden
from controller.kinds.kind import Object, ResourceKey

PODS: Final = ResourceKey("", "pods")
RUNTIME_CLASSES: Final = ResourceKey("node.k8s.io", "runtimeclasses")


def admit(request: AdmissionRequest, lookup: Lookup) -> None:
    """Complete a new pod by its class. Raises ``ApiError`` 403 for an unknown class and for what contradicts it."""
    if request.kind.key != PODS or request.operation != "CREATE" or request.subresource:
        return
    pod = request.obj
    spec: Object = pod.setdefault("spec", {})
    name = spec.get("runtimeClassName")
    chosen: Object = {}
    if name:
        found = lookup(RUNTIME_CLASSES, "", name)
        if found is None:
            raise _rejected(pod, f'RuntimeClass "{name}" not found')
        chosen = found.decode()
    _complete_overhead(pod, spec, (chosen.get("overhead") or {}).get("podFixed") or {})
    scheduling = chosen.get("scheduling") or {}
    _complete_selector(pod, spec, scheduling.get("nodeSelector") or {})
    for each in scheduling.get("tolerations") or []:
        given = spec.setdefault("tolerations", [])
        if each not in given:
            given.append(each)


def _complete_overhead(pod: Object, spec: Object, fixed: Object) -> None:
    given = spec.get("overhead") or {}
    if given and not fixed:
        raise _rejected(pod, "Pod Overhead set without corresponding RuntimeClass defined Overhead")
    if given and given != fixed:
        raise _rejected(pod, "Pod's Overhead doesn't match RuntimeClass's defined Overhead")
    if fixed:
        spec["overhead"] = dict(fixed)


def _complete_selector(pod: Object, spec: Object, wanted: Object) -> None:
    given = spec.get("nodeSelector") or {}
    for key, value in wanted.items():
        if key in given and given[key] != value:
            why = f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
            raise _rejected(pod, why + f"pod.spec.nodeSelector[{key}] = {given[key]}")
    if wanted:
        spec["nodeSelector"] = {**wanted, **given}


def _rejected(pod: Object, why: str) -> ApiError:
    return forbidden(PODS, pod["metadata"].get("name", ""), f"pod rejected: {why}")
