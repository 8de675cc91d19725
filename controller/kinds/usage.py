"""What objects use of the resources that a ResourceQuota limits. Pure.

Spec: kube ``pkg/quota/v1/evaluator/core``.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from common.quantity import ZERO, Quantity
from controller.kinds.columns import dig
from controller.kinds.kind import Object, ResourceKey

PODS: Final = ResourceKey("", "pods")
SERVICES: Final = ResourceKey("", "services")
CLAIMS: Final = ResourceKey("", "persistentvolumeclaims")
Usage = Mapping[str, Quantity]
ONE: Final = Quantity.of(1)
_COUNTED: Final = frozenset(
    ("configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services")
)
"""Core resources that are also limited by their bare name."""
COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_MUST_SAY: Final = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_CLASS_SUFFIX: Final = ".storageclass.storage.k8s.io"


def add(parts: Iterable[Usage]) -> dict[str, Quantity]:
    """The sum, resource by resource."""
    total: dict[str, Quantity] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, ZERO) + amount
    return total


def count_name(resource: ResourceKey) -> str:
    """``count/deployments.apps``."""
    return f"count/{resource}"


def usage_of(resource: ResourceKey, obj: Object) -> dict[str, Quantity]:
    """All that one object uses, by the names that quotas give it."""
    used = {count_name(resource): ONE}
    if not resource.group and resource.plural in _COUNTED:
        used[resource.plural] = ONE
    if resource == PODS:
        used |= _pod(obj)
    elif resource == SERVICES:
        used |= _service(obj)
    elif resource == CLAIMS:
        used |= _claim(obj)
    return used


def has_ended(pod: Object) -> bool:
    """A pod that runs no more uses nothing but its place in the store."""
    return dig(pod, "status.phase") in ("Succeeded", "Failed")


def _pod(pod: Object) -> dict[str, Quantity]:
    if has_ended(pod):
        return {}
    spec = pod.get("spec") or {}
    used: dict[str, Quantity] = {"pods": ONE}
    for name, amount in pod_total(spec, "requests").items():
        used[f"requests.{name}"] = amount
        if name in COMPUTE or name.startswith("hugepages-"):
            used[name] = amount
    for name, amount in pod_total(spec, "limits").items():
        used[f"limits.{name}"] = amount
    return used


def pod_total(spec: Object, sort: str) -> dict[str, Quantity]:
    """``requests`` or ``limits`` of a whole pod: its containers and sidecars together, or its biggest init step."""
    total = add(amounts(container, sort) for container in spec.get("containers") or ())
    sidecars: dict[str, Quantity] = {}
    peak: dict[str, Quantity] = {}
    for container in spec.get("initContainers") or ():
        step = add([sidecars, amounts(container, sort)])
        if container.get("restartPolicy") == "Always":
            sidecars = step
        peak = _most(peak, step)
    total = _most(add([total, sidecars]), peak)
    overhead = {name: Quantity.parse(value) for name, value in (spec.get("overhead") or {}).items()}
    return add([total, overhead]) if total or sort == "requests" else total


def amounts(container: Object, sort: str) -> dict[str, Quantity]:
    """A container's ``requests`` or ``limits``."""
    found = (container.get("resources") or {}).get(sort) or {}
    return {name: Quantity.parse(value) for name, value in found.items()}


def _most(one: Usage, other: Usage) -> dict[str, Quantity]:
    return {name: max(one.get(name, ZERO), other.get(name, ZERO)) for name in {**one, **other}}


def _service(service: Object) -> dict[str, Quantity]:
    spec = service.get("spec") or {}
    ports = len(spec.get("ports") or ())
    match spec.get("type"):
        case "NodePort":
            return {"services.nodeports": Quantity.of(ports)}
        case "LoadBalancer":
            outer = ports if spec.get("allocateLoadBalancerNodePorts", True) else 0
            return {"services.nodeports": Quantity.of(outer), "services.loadbalancers": ONE}
        case _:
            return {}


def _claim(claim: Object) -> dict[str, Quantity]:
    spec = claim.get("spec") or {}
    storage = Quantity.parse(dig(spec, "resources.requests.storage", "0"))
    used = {"requests.storage": storage}
    if spec.get("storageClassName"):
        prefix = f"{spec['storageClassName']}{_CLASS_SUFFIX}"
        used |= {f"{prefix}/requests.storage": storage, f"{prefix}/persistentvolumeclaims": ONE}
    return used


# ---- what a quota counts -------------------------------------------------------------------------------------


def covers(quota: Object, resource: ResourceKey, obj: Object) -> bool:
    """Whether the quota's scopes, if it has any, take in the object."""
    spec = quota.get("spec") or {}
    terms: list[Mapping[str, Any]] = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or ()]
    terms += dig(spec, "scopeSelector.matchExpressions", [])
    if not terms:
        return True
    return resource == PODS and all(_in_scope(term, obj.get("spec") or {}) for term in terms)


def _in_scope(term: Mapping[str, Any], spec: Object) -> bool:
    match term.get("scopeName"):
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return _is_best_effort(spec)
        case "NotBestEffort":
            return not _is_best_effort(spec)
        case "CrossNamespacePodAffinity":
            return _looks_across_namespaces(spec)
        case "PriorityClass":
            return _selects(term, spec.get("priorityClassName") or "")
        case _:
            return False


def _selects(term: Mapping[str, Any], value: str) -> bool:
    match term.get("operator"):
        case "In":
            return value in (term.get("values") or ())
        case "NotIn":
            return value not in (term.get("values") or ())
        case "DoesNotExist":
            return not value
        case _:
            return bool(value)


def _is_best_effort(spec: Object) -> bool:
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return not any(
        amount for each in containers for sort in ("requests", "limits") for amount in amounts(each, sort).values()
    )


def _looks_across_namespaces(spec: Object) -> bool:
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = dig(spec, f"affinity.{kind}.requiredDuringSchedulingIgnoredDuringExecution", [])
        weighted = dig(spec, f"affinity.{kind}.preferredDuringSchedulingIgnoredDuringExecution", [])
        for term in [*terms, *(each.get("podAffinityTerm") or {} for each in weighted)]:
            if term.get("namespaces") or term.get("namespaceSelector") is not None:
                return True
    return False


def hard_of(quota: Object) -> dict[str, Quantity]:
    """``spec.hard``."""
    return {name: Quantity.parse(value) for name, value in dig(quota, "spec.hard", {}).items()}


def unsaid(quota: Object, pod: Object) -> str:
    """What a pod must say to be counted by the quota and does not, as the API puts it; empty when it says all."""
    spec = pod.get("spec") or {}
    missing: dict[str, list[str]] = {}
    for limited in sorted(set(_MUST_SAY) & set(dig(quota, "spec.hard", {}))):
        sort, _, name = limited.rpartition(".")
        for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
            if name not in amounts(container, sort or "requests"):
                missing.setdefault(limited, []).append(str(container.get("name")))
    return "; ".join(f"{name} for: {','.join(sorted(set(who)))}" for name, who in missing.items())


def used_of(quota: Object, objects: Iterable[tuple[ResourceKey, Object]]) -> dict[str, Quantity]:
    """What ``objects``, all of the quota's namespace, use of what it limits."""
    hard = hard_of(quota)
    total = add(usage_of(resource, obj) for resource, obj in objects if covers(quota, resource, obj))
    return {name: total.get(name, ZERO) for name in hard}


def is_limited(resource: ResourceKey, hard: Usage) -> bool:
    """Whether objects of the resource can use any of what is limited."""
    if count_name(resource) in hard:
        return True
    if resource == PODS:
        return any(
            name == "pods" or name in COMPUTE or name.startswith(("requests.", "limits.", "hugepages-"))
            for name in hard
        )
    if resource == SERVICES:
        return any(name.startswith("services") for name in hard)
    if resource == CLAIMS:
        return any(name == "requests.storage" or name == CLAIMS.plural or _CLASS_SUFFIX in name for name in hard)
    return not resource.group and resource.plural in _COUNTED and resource.plural in hard
