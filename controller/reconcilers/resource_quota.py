"""ResourceQuota: keeps ``status.used`` at what the namespace's objects use. Admission counts for itself."""

from collections.abc import Callable, Iterable, Mapping

from controller.kinds import usage
from controller.kinds.columns import dig
from controller.kinds.kind import ResourceKey
from controller.runtime.reconciler import EVERYTHING, Map, own_key
from controller.runtime.resources import RESOURCE_QUOTAS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Plan, UpdateStatus
from controller.store.cache import Change


def _quota_keys(view: View, change: Change) -> tuple[str, ...]:
    """Quotas of a namespace in which something came, went, or, being a pod, ended or was resized."""
    entry = change.entry
    if not entry.namespace or (entry.resource == RESOURCE_QUOTAS and change.type == "MODIFIED"):
        return ()
    if change.type == "MODIFIED" and entry.resource not in (usage.PODS, usage.SERVICES, usage.CLAIMS):
        return ()
    return tuple(f"{entry.namespace}/{quota.name}" for quota in view.entries(RESOURCE_QUOTAS, entry.namespace))


class ResourceQuotaReconciler:
    """``resources`` gives every resource that objects are stored of."""

    name = "resourcequota-controller"
    watches: Mapping[ResourceKey, Map] = {RESOURCE_QUOTAS: own_key, EVERYTHING: _quota_keys}

    def __init__(self, resources: Callable[[], Iterable[ResourceKey]]) -> None:
        self._resources = resources

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        quota = view.get(RESOURCE_QUOTAS, namespace, name)
        if quota is None or "deletionTimestamp" in quota["metadata"]:
            return NOTHING_TO_DO
        hard = usage.hard_of(quota)
        counted = [each for each in sorted(self._resources()) if usage.is_limited(each, hard)]
        objects = ((each, view.decode(entry)) for each in counted for entry in view.entries(each, namespace))
        used = {name: str(amount) for name, amount in usage.used_of(quota, objects).items()}
        status = {"hard": dig(quota, "spec.hard", {}), "used": used}
        if status == quota.get("status"):
            return NOTHING_TO_DO
        return Plan((UpdateStatus(RESOURCE_QUOTAS, {**quota, "status": status}),), None, "counted")
