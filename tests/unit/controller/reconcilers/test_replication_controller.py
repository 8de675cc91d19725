"""ReplicationController: what the kind before ReplicaSets does, by its plain map of labels."""

from typing import Any

from controller.kinds.kind import Object
from controller.reconcilers import conditions, owners
from controller.reconcilers.replicaset import ReplicationControllerReconciler
from controller.runtime.resources import PODS, REPLICATION_CONTROLLERS
from controller.runtime.view import Failure
from controller.store.cache import Change
from tests.support.model_registry import ModelRegistry

KEY = "d/rc"


def registry(replicas: int) -> ModelRegistry:
    found = ModelRegistry()
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    found.put(
        REPLICATION_CONTROLLERS,
        {
            "apiVersion": "v1",
            "kind": "ReplicationController",
            "metadata": {"name": "rc", "namespace": "d"},
            "spec": {"replicas": replicas, "selector": {"app": "a"}, "template": template},
        },
    )
    return found


def pod(name: str, **metadata: Any) -> Object:
    meta = {"name": name, "namespace": "d", "labels": {"app": "a"}, **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": []}, "status": {}}


def settle(found: ModelRegistry) -> Object:
    """Its status once nothing is left to do."""
    found.settle(lambda: [(ReplicationControllerReconciler(), KEY)])
    status: Object = found.list(REPLICATION_CONTROLLERS)[0].decode()["status"]
    return status


def scale(found: ModelRegistry, replicas: int) -> None:
    rc = found.list(REPLICATION_CONTROLLERS)[0].decode()
    found.put(REPLICATION_CONTROLLERS, {**rc, "spec": {**rc["spec"], "replicas": replicas}})


def test_keeps_as_many_pods_as_asked_for() -> None:
    found = registry(3)
    assert settle(found)["replicas"] == 3
    scale(found, 1)
    assert settle(found)["replicas"] == 1
    (left,) = found.list(PODS)
    reference = owners.controller_of(left.decode())
    assert reference is not None
    assert (reference["apiVersion"], reference["kind"]) == ("v1", "ReplicationController")


def test_adopts_what_matches_and_lets_go_what_does_not() -> None:
    found = registry(1)
    found.put(PODS, pod("orphan"))
    settle(found)
    assert [entry.name for entry in found.list(PODS)] == ["orphan"]
    adopted = found.list(PODS)[0].decode()
    assert owners.controller_of(adopted) is not None
    found.put(PODS, {**adopted, "metadata": {**adopted["metadata"], "labels": {"app": "other"}}})
    assert settle(found)["replicas"] == 1
    released = found.get(PODS, "d", "orphan")
    assert released is not None
    assert released.owners == ()


def test_an_orphan_wakes_the_controllers_whose_labels_it_has() -> None:
    found = registry(1)
    keys = ReplicationControllerReconciler.watches[PODS]
    woken = {}
    for name, labels in (("mine", {"app": "a", "tier": "b"}), ("nobodys", {"tier": "b"})):
        found.put(PODS, pod(name, labels=labels))
        entry = found.get(PODS, "d", name)
        assert entry is not None
        woken[name] = list(keys(found.view, Change("ADDED", entry, None, 1)))
    assert woken == {"mine": [KEY], "nobodys": []}


def test_a_refusal_shows_until_no_more_pods_are_wanted_than_there_are() -> None:
    found = registry(2)
    settle(found)
    scale(found, 3)
    reconciler = ReplicationControllerReconciler()
    found.view.note_failure(reconciler.name, KEY, Failure("Forbidden", "exceeded quota"))
    found.run(reconciler, KEY, 2)
    shown = found.list(REPLICATION_CONTROLLERS)[0].decode()["status"]
    assert conditions.is_true(shown["conditions"], "ReplicaFailure")
    scale(found, 2)
    status = settle(found)
    assert "conditions" not in status
    assert status["observedGeneration"] == found.list(REPLICATION_CONTROLLERS)[0].decode()["metadata"]["generation"]


def test_says_nothing_of_pods_on_their_way_out() -> None:
    found = registry(1)
    found.linger = True
    settle(found)
    made = found.list(PODS)[0].decode()
    found.put(PODS, {**made, "metadata": {**made["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    status = settle(found)
    assert status["replicas"] == 1
    assert "terminatingReplicas" not in status
