"""Quotas are counted; definitions get their names, wait for names that are taken, and go last. On a model registry."""

from typing import Any

from controller.kinds.kind import Object
from controller.reconcilers import conditions
from controller.reconcilers.custom_definitions import DEFINITIONS, CustomDefinitionReconciler
from controller.reconcilers.resource_quota import ResourceQuotaReconciler
from controller.runtime.resources import CONFIG_MAPS, PODS, RESOURCE_QUOTAS
from tests.support.model_registry import ModelRegistry


def thing(kind: str, name: str, namespace: str = "", **rest: Any) -> Object:
    meta: Object = {"name": name, **({"namespace": namespace} if namespace else {}), **rest.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, **rest}


def test_a_quota_says_what_is_used_in_its_namespace() -> None:
    found = ModelRegistry()
    reconciler = ResourceQuotaReconciler(lambda: [CONFIG_MAPS, PODS, RESOURCE_QUOTAS])
    found.put(RESOURCE_QUOTAS, thing("ResourceQuota", "q", "d", spec={"hard": {"configmaps": "5", "cpu": "2"}}))
    found.put(CONFIG_MAPS, thing("ConfigMap", "a", "d"))
    found.put(CONFIG_MAPS, thing("ConfigMap", "elsewhere", "e"))
    container = {"name": "c", "resources": {"requests": {"cpu": "500m"}}}
    found.put(PODS, thing("Pod", "p", "d", spec={"containers": [container]}, status={"phase": "Running"}))
    found.settle(lambda: [(reconciler, "d/q")])
    status = found.list(RESOURCE_QUOTAS)[0].decode()["status"]
    assert status == {"hard": {"configmaps": "5", "cpu": "2"}, "used": {"configmaps": "1", "cpu": "500m"}}
    found.remove(PODS, "d", "p")
    found.settle(lambda: [(reconciler, "d/q")])
    assert found.list(RESOURCE_QUOTAS)[0].decode()["status"]["used"]["cpu"] == "0"


def definition(name: str, kind: str, short: str = "") -> Object:
    names = {"plural": name, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List", "shortNames": [short]}
    finalizers = ["customresourcecleanup.apiextensions.k8s.io"]
    metadata = {"finalizers": finalizers}
    return thing(
        "CustomResourceDefinition",
        f"{name}.example.com",
        metadata=metadata,
        spec={"group": "example.com", "names": names},
        status={},
    )


def condition(found: ModelRegistry, name: str, kind: str) -> str:
    entry = found.get(DEFINITIONS, "", name)
    assert entry is not None
    return str((conditions.find(entry.decode()["status"].get("conditions"), kind) or {}).get("status"))


def test_names_belong_to_the_first_and_are_free_again_when_it_goes() -> None:
    found = ModelRegistry()
    reconciler = CustomDefinitionReconciler()
    keys = ["/widgets.example.com", "/wodgets.example.com"]
    found.put(DEFINITIONS, definition("widgets", "Widget", "w"))
    found.settle(lambda: [(reconciler, keys[0])])
    found.put(DEFINITIONS, definition("wodgets", "Wodget", "w"))
    found.settle(lambda: [(reconciler, key) for key in keys])
    assert condition(found, "widgets.example.com", "Established") == "True"
    assert condition(found, "wodgets.example.com", "NamesAccepted") == "False"
    assert condition(found, "wodgets.example.com", "Established") == "False"
    found.remove(DEFINITIONS, "", "widgets.example.com")
    found.settle(lambda: [(reconciler, key) for key in keys])
    assert condition(found, "wodgets.example.com", "Established") == "True"


def test_a_definition_goes_only_with_its_finalizer() -> None:
    found = ModelRegistry()
    reconciler = CustomDefinitionReconciler()
    made = definition("widgets", "Widget", "w")
    made["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found.put(DEFINITIONS, made)
    found.settle(lambda: [(reconciler, "/widgets.example.com")])
    assert found.list(DEFINITIONS) == []
