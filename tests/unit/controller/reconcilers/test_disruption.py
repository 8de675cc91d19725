"""PodDisruptionBudget: allowances follow from the pods there are and the size their owners want."""

from typing import Any

import pytest

from common.clock import rfc3339
from controller.kinds.kind import Object
from controller.reconcilers import conditions, owners
from controller.reconcilers.disruption import DELETION_S_MAX, DisruptionReconciler
from controller.runtime.resources import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS
from controller.store.cache import Change
from tests.support.model_registry import ModelRegistry

KEY = "d/pdb"
RECONCILER = DisruptionReconciler()


def world(replicas: int, ready: int, **spec: Any) -> ModelRegistry:
    found = ModelRegistry()

    def owner(kind: str, name: str, **meta: Any) -> Object:
        body = {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}}
        return {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "d", **meta},
            "spec": body,
        }

    deployment = found.put(DEPLOYMENTS, owner("Deployment", "web"))
    rs = found.put(REPLICA_SETS, owner("ReplicaSet", "web-1", ownerReferences=[owners.reference_to(deployment)]))
    for number in range(ready):
        meta = {"name": f"p{number}", "namespace": "d", "labels": {"app": "a"}}
        meta["ownerReferences"] = [owners.reference_to(rs)]
        stamp = rfc3339(found.now)
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": stamp}]}
        found.put(
            PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": "n"}, "status": status}
        )
    budget = {"selector": {"matchLabels": {"app": "a"}}, **spec}
    meta = {"name": "pdb", "namespace": "d"}
    found.put(
        POD_DISRUPTION_BUDGETS,
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": budget},
    )
    found.settle(lambda: [(RECONCILER, KEY)])
    return found


def budget(found: ModelRegistry) -> Object:
    return found.list(POD_DISRUPTION_BUDGETS)[0].decode()


@pytest.mark.parametrize(
    ("replicas", "ready", "spec", "desired", "allowed"),
    [
        (3, 3, {"minAvailable": 2}, 2, 1),
        (3, 2, {"minAvailable": 2}, 2, 0),
        (4, 4, {"minAvailable": "50%"}, 2, 2),
        (3, 3, {"minAvailable": "50%"}, 2, 1),
        (3, 3, {"maxUnavailable": 1}, 2, 1),
        (3, 2, {"maxUnavailable": 1}, 2, 0),
        (4, 4, {"maxUnavailable": "30%"}, 2, 2),
        (3, 3, {"maxUnavailable": 0}, 3, 0),
        (0, 0, {"minAvailable": 0}, 0, 0),
    ],
)
def test_allowances(replicas: int, ready: int, spec: Object, desired: int, allowed: int) -> None:
    status = budget(world(replicas, ready, **spec))["status"]
    assert (status["desiredHealthy"], status["currentHealthy"], status["disruptionsAllowed"]) == (
        desired,
        ready,
        allowed,
    )
    found = conditions.find(status["conditions"], "DisruptionAllowed")
    assert found is not None
    assert found["reason"] == ("SufficientPods" if allowed else "InsufficientPods")


def test_an_evicted_pod_counts_as_gone_until_it_is_or_its_deletion_never_came() -> None:
    found = world(3, 3, minAvailable=1)
    spent = budget(found)
    spent["status"] |= {"disruptionsAllowed": 1, "disruptedPods": {"p0": rfc3339(found.now)}}
    found.put(POD_DISRUPTION_BUDGETS, spent)
    found.settle(lambda: [(RECONCILER, KEY)])
    assert budget(found)["status"]["disruptionsAllowed"] == 1
    assert found.plan(RECONCILER, KEY).again_s == DELETION_S_MAX
    found.now += DELETION_S_MAX
    found.settle(lambda: [(RECONCILER, KEY)])
    assert budget(found)["status"]["disruptionsAllowed"] == 2
    assert "disruptedPods" not in budget(found)["status"]
    assert "NotDeleted" in [event.reason for event in found.events]


def test_pods_that_nothing_keeps_have_no_expected_number() -> None:
    found = world(1, 1, maxUnavailable=1)
    meta = {"name": "bare", "namespace": "d", "labels": {"app": "a"}}
    found.put(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}})
    found.settle(lambda: [(RECONCILER, KEY)])
    condition = conditions.find(budget(found)["status"]["conditions"], "DisruptionAllowed")
    assert condition is not None
    assert (condition["reason"], condition["message"]) == ("SyncFailed", 'found no controllers for pod "bare"')


def test_an_empty_selector_covers_every_pod() -> None:
    found = world(2, 2, minAvailable=1, selector={})
    assert budget(found)["status"]["disruptionsAllowed"] == 1
    pod = found.list(PODS)[0]
    assert RECONCILER.watches[PODS](found.view, Change("MODIFIED", pod, None, 1)) == (KEY,)
