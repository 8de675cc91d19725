"""Every namespace has a ServiceAccount ``default``, which pods without one run as."""

from collections.abc import Mapping

from controller.kinds.kind import ResourceKey
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import NAMESPACES, SERVICE_ACCOUNTS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Plan
from controller.store.cache import Change


def namespace_key(view: View, change: Change) -> tuple[str, ...]:
    """The namespace of the changed object."""
    return (f"/{change.entry.namespace}",)


class ServiceAccountReconciler:
    """See the module."""

    name = "serviceaccount-controller"
    watches: Mapping[ResourceKey, Map] = {NAMESPACES: own_key, SERVICE_ACCOUNTS: namespace_key}

    def plan(self, view: View, key: str, now: float) -> Plan:
        _, namespace = split(key)
        entry = view.entry(NAMESPACES, "", namespace)
        if entry is None or entry.deleting or view.entry(SERVICE_ACCOUNTS, namespace, "default") is not None:
            return NOTHING_TO_DO
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace},
        }
        return Plan((Create(SERVICE_ACCOUNTS, account),), None, "created the default service account")
