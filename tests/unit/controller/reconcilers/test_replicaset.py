"""ReplicaSet: victims, adoption, release, failures."""

from typing import Any

from common.clock import rfc3339
from controller.kinds.kind import Object
from controller.reconcilers import conditions, owners
from controller.reconcilers.replicaset import ReplicaSetReconciler, victims
from controller.runtime.resources import PODS, REPLICA_SETS
from controller.runtime.view import Failure
from controller.runtime.writes import Create, EmitEvent, UpdateStatus
from controller.store.cache import Change
from tests.support.model_registry import ModelRegistry

KEY = "d/rs"


def registry(replicas: int = 2) -> ModelRegistry:
    found = ModelRegistry()
    found.put(
        REPLICA_SETS,
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": "rs", "namespace": "d"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "a"}},
                "template": {
                    "metadata": {"labels": {"app": "a"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]},
                },
            },
        },
    )
    return found


def pod(name: str, **metadata: Any) -> Object:
    meta = {"name": name, "namespace": "d", "labels": {"app": "a"}, **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": []}, "status": {}}


def names(found: ModelRegistry) -> list[str]:
    return [entry.name for entry in found.list(PODS)]


def status(found: ModelRegistry) -> Any:
    return found.list(REPLICA_SETS)[0].decode().get("status")


def test_creates_what_lacks_and_deletes_what_is_too_much() -> None:
    found = registry(3)
    found.run(ReplicaSetReconciler(), KEY)
    assert len(names(found)) == 3
    found.put(REPLICA_SETS, {**(rs := found.list(REPLICA_SETS)[0].decode()), "spec": {**rs["spec"], "replicas": 1}})
    found.run(ReplicaSetReconciler(), KEY)
    assert len(names(found)) == 1
    assert [event.reason for event in found.events].count("SuccessfulDelete") == 2


def test_adopts_orphans_instead_of_creating() -> None:
    found = registry(2)
    found.put(PODS, pod("orphan"))
    found.settle(lambda: [(ReplicaSetReconciler(), KEY)])
    assert len(names(found)) == 2
    orphan = found.get(PODS, "d", "orphan")
    assert orphan is not None
    assert orphan.owners == (found.list(REPLICA_SETS)[0].uid,)


def test_releases_pods_that_no_longer_match_and_replaces_them() -> None:
    found = registry(1)
    rs = found.list(REPLICA_SETS)[0].decode()
    found.put(PODS, pod("astray", labels={"app": "b"}, ownerReferences=[owners.reference_to(rs)]))
    found.settle(lambda: [(ReplicaSetReconciler(), KEY)])
    astray = found.get(PODS, "d", "astray")
    assert astray is not None
    assert astray.owners == ()
    assert len(names(found)) == 2


def test_leaves_pods_of_another_controller_alone() -> None:
    found = registry(1)
    other = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "uid": "other"}}
    found.put(PODS, pod("theirs", ownerReferences=[owners.reference_to(other)]))
    found.settle(lambda: [(ReplicaSetReconciler(), KEY)])
    assert len(names(found)) == 2


def test_finished_pods_are_replaced() -> None:
    found = registry(1)
    rs = found.list(REPLICA_SETS)[0].decode()
    failed = pod("failed", ownerReferences=[owners.reference_to(rs)])
    found.put(PODS, {**failed, "status": {"phase": "Failed"}})
    found.settle(lambda: [(ReplicaSetReconciler(), KEY)])
    assert len(names(found)) == 2


def test_a_refusal_shows_as_condition_and_event_and_goes_away() -> None:
    found = registry(1)
    reconciler = ReplicaSetReconciler()
    found.view.note_failure(reconciler.name, KEY, Failure("Forbidden", "exceeded quota"))
    plan = found.plan(reconciler, KEY)
    kinds = [type(write) for write in plan.writes]
    assert kinds == [EmitEvent, UpdateStatus, Create]
    found.run(reconciler, KEY)
    assert conditions.is_true(status(found)["conditions"], "ReplicaFailure")
    found.view.note_failure(reconciler.name, KEY, None)
    found.settle(lambda: [(reconciler, KEY)])
    assert "conditions" not in status(found)


def test_victims_are_the_least_useful() -> None:
    def one(name: str, node: str, phase: str, *, ready: bool = False, created: str = "2026-01-01T00:00:00Z") -> Object:
        made = pod(name, creationTimestamp=created)
        made["spec"]["nodeName"] = node
        listed = [{"type": "Ready", "status": "True", "lastTransitionTime": created}] if ready else []
        made["status"] = {"phase": phase, "conditions": listed}
        return made

    found = victims(
        [
            one("ready-old", "n1", "Running", ready=True),
            one("ready-new", "n1", "Running", ready=True, created="2026-02-01T00:00:00Z"),
            one("alone", "n2", "Running", ready=True, created="2026-03-01T00:00:00Z"),
            one("unready", "n2", "Running"),
            one("pending", "n3", "Pending"),
            one("unbound", "", "Pending"),
        ]
    )
    assert [each["metadata"]["name"] for each in found] == [
        "unbound",
        "pending",
        "unready",
        "alone",
        "ready-new",
        "ready-old",
    ]


def test_becomes_available_after_min_ready_seconds() -> None:
    found = registry(1)
    rs = found.list(REPLICA_SETS)[0].decode()
    rs["spec"]["minReadySeconds"] = 30
    found.put(REPLICA_SETS, rs)
    reconciler = ReplicaSetReconciler()
    found.run(reconciler, KEY)
    made = found.list(PODS)[0].decode()
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": made["metadata"]["creationTimestamp"]}
    found.put(PODS, {**made, "status": {"phase": "Running", "conditions": [ready]}})
    assert found.plan(reconciler, KEY).again_s == 30
    found.run(reconciler, KEY)
    assert "availableReplicas" not in status(found)
    found.now += 30
    found.run(reconciler, KEY)
    assert status(found)["availableReplicas"] == 1


def test_counts_pods_that_are_on_their_way_out() -> None:
    found = registry(1)
    found.linger = True
    rs = found.list(REPLICA_SETS)[0].decode()
    ending = pod("ending", ownerReferences=[owners.reference_to(rs)], deletionTimestamp=rfc3339(found.now))
    found.put(PODS, ending)
    found.settle(lambda: [(ReplicaSetReconciler(), KEY)])
    assert (status(found)["replicas"], status(found)["terminatingReplicas"]) == (1, 1)
    found.remove(PODS, "d", "ending")
    found.settle(lambda: [(ReplicaSetReconciler(), KEY)])
    assert "terminatingReplicas" not in status(found)


def test_a_change_of_an_orphan_wakes_those_that_select_it_and_no_other() -> None:
    found = registry(1)
    keys = ReplicaSetReconciler.watches[PODS]
    other = found.list(REPLICA_SETS)[0].decode()
    other["metadata"] = {"name": "other", "namespace": "d"}
    other["spec"]["selector"] = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}
    found.put(REPLICA_SETS, other)
    entries = {}
    for name, labels in (("mine", {"app": "a"}), ("theirs", {"app": "b"}), ("nobodys", {"tier": "a"})):
        found.put(PODS, pod(name, labels=labels))
        entries[name] = found.get(PODS, "d", name)
    woken = {name: set(keys(found.view, Change("ADDED", e, None, 1))) for name, e in entries.items() if e}
    assert woken == {"mine": {"d/rs", "d/other"}, "theirs": {"d/other"}, "nobodys": set()}


def test_who_does_not_see_all_pods_yet_makes_none_twice() -> None:
    found = registry(4)

    def planned() -> set[str]:
        plan = found.plan(ReplicaSetReconciler(), KEY)
        return {write.object["metadata"]["name"] for write in plan.writes if isinstance(write, Create)}

    before = planned()
    found.run(ReplicaSetReconciler(), KEY, 2)
    assert len(names(found)) == 2
    assert planned() | set(names(found)) == before
