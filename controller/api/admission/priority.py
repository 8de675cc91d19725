"""Priority: a pod's class becomes a number, and system classes stay in kube-system. Pure."""

from typing import Final

from controller.api.admission import AdmissionRequest, Lookup
from controller.api.status import forbidden
from controller.kinds.kind import ResourceKey

PODS: Final = ResourceKey("", "pods")
PRIORITY_CLASSES: Final = ResourceKey("scheduling.k8s.io", "priorityclasses")


def admit(request: AdmissionRequest, lookup: Lookup) -> None:
    """Complete ``spec.priority`` and ``spec.preemptionPolicy``. Raises ``ApiError`` 403 for an unknown class."""
    if request.kind.key != PODS or request.operation != "CREATE" or request.subresource:
        return
    spec = request.obj.setdefault("spec", {})
    name, value, preemption = spec.get("priorityClassName"), 0, "PreemptLowerPriority"
    if name:
        found = lookup(PRIORITY_CLASSES, "", name)
        if found is None:
            why = f"no PriorityClass with name {name} was found"
            raise forbidden(PODS, request.obj["metadata"].get("name", ""), why)
        chosen = found.decode()
        value, preemption = int(chosen.get("value", 0)), chosen.get("preemptionPolicy", preemption)
    given = spec.get("priority")
    if given is not None and given != value:
        why = f"the integer value of priority ({given}) must not be provided in pod spec; "
        why += f"priority admission controller computed {value} from the given PriorityClass name"
        raise forbidden(PODS, request.obj["metadata"].get("name", ""), why)
    spec["priority"] = value
    spec["preemptionPolicy"] = spec.get("preemptionPolicy") or preemption
