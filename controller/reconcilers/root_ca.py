"""Every namespace has a ConfigMap ``kube-root-ca.crt``, by which pods trust the API server."""

from collections.abc import Mapping

from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers.service_account import namespace_key
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import CONFIG_MAPS, NAMESPACES, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Plan, Update
from controller.store.cache import Change

NAME = "kube-root-ca.crt"


def _keys_of_config_map(view: View, change: Change) -> tuple[str, ...]:
    return namespace_key(view, change) if change.entry.name == NAME else ()


class RootCaReconciler:
    """See the module."""

    name = "root-ca-certificate-publisher"
    watches: Mapping[ResourceKey, Map] = {NAMESPACES: own_key, CONFIG_MAPS: _keys_of_config_map}

    def __init__(self, ca_pem: str) -> None:
        self._data = {"ca.crt": ca_pem}

    def plan(self, view: View, key: str, now: float) -> Plan:
        _, namespace = split(key)
        entry = view.entry(NAMESPACES, "", namespace)
        if entry is None or entry.deleting:
            return NOTHING_TO_DO
        known = view.get(CONFIG_MAPS, namespace, NAME)
        if known is not None and known.get("data") == self._data:
            return NOTHING_TO_DO
        if known is not None:
            return Plan((Update(CONFIG_MAPS, {**known, "data": self._data}),), None, "restored the root certificate")
        text = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints."
        fresh: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": NAME,
                "namespace": namespace,
                "annotations": {"kubernetes.io/description": text},
            },
            "data": self._data,
        }
        return Plan((Create(CONFIG_MAPS, fresh),), None, "published the root certificate")
