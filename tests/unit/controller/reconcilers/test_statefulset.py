"""StatefulSet: names, order, identity, partitions, claims."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds.kind import Object
from controller.reconcilers import pods
from controller.reconcilers.statefulset import NAME_TAKEN_S, StatefulSetReconciler
from controller.runtime.resources import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from tests.support.workload_model import KEY, WorkloadModel


def stateful_set(replicas: int = 3, **spec: Any) -> WorkloadModel:
    wanted = {"replicas": replicas, "serviceName": "peers", **spec}
    return WorkloadModel(StatefulSetReconciler(), STATEFUL_SETS, "StatefulSet", "apps", wanted)


def names(model: WorkloadModel) -> list[str]:
    return [pod["metadata"]["name"] for pod in model.pods()]


def advance(model: WorkloadModel) -> bool:
    """Hosts do what they were asked for."""
    moved = False
    for pod in model.pods():
        if pods.is_deleting(pod):
            model.let_go(pod)
            moved = True
        elif not pods.is_ready(pod):
            model.run(pod, "n1")
            moved = True
    return moved


def arrive(model: WorkloadModel) -> None:
    model.settle()
    while advance(model):
        model.settle()


def test_pods_come_one_after_the_other_and_go_the_other_way() -> None:
    model = stateful_set(2)
    model.settle()
    assert names(model) == ["web-0"]
    advance(model)
    model.settle()
    assert names(model) == ["web-0", "web-1"]
    arrive(model)
    model.change(replicas=0)
    model.settle()
    assert [pods.is_deleting(pod) for pod in model.pods()] == [False, True]
    arrive(model)
    assert names(model) == []


def test_parallel_waits_for_nobody() -> None:
    model = stateful_set(3, podManagementPolicy="Parallel")
    model.settle()
    assert names(model) == ["web-0", "web-1", "web-2"]
    model.change(replicas=1)
    model.settle()
    arrive(model)
    assert names(model) == ["web-0"]


def test_a_pod_knows_who_it_is() -> None:
    model = stateful_set(1, ordinals={"start": 5})
    arrive(model)
    pod = model.pods()[0]
    assert (pod["metadata"]["name"], pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("web-5", "web-5", "peers")
    labels = pod["metadata"]["labels"]
    assert (labels["statefulset.kubernetes.io/pod-name"], labels["apps.kubernetes.io/pod-index"]) == ("web-5", "5")
    assert labels["controller-revision-hash"] == model.status["updateRevision"]


def test_status_counts_as_users_read_it() -> None:
    model = stateful_set(2)
    arrive(model)
    status = model.status
    assert status["currentRevision"] == status["updateRevision"]
    counts = ("replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas")
    assert [status[name] for name in counts] == [2] * 5


def test_an_update_goes_from_the_last_to_the_first_and_stops_at_the_partition() -> None:
    model = stateful_set(3, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}})
    arrive(model)
    model.change(image="v2")
    model.settle()
    assert [pods.is_deleting(pod) for pod in model.pods()] == [False, False, True]
    arrive(model)
    assert model.images(model.pods()) == ["v1", "v2", "v2"]
    assert model.status["currentRevision"] != model.status["updateRevision"]
    model.registry.remove(PODS, "d", "web-0")
    arrive(model)
    assert model.images(model.pods()) == ["v1", "v2", "v2"], "below the partition the old template is kept"
    model.change(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    arrive(model)
    assert model.images(model.pods()) == ["v2"] * 3
    assert model.status["currentRevision"] == model.status["updateRevision"]


def test_on_delete_waits_for_the_user() -> None:
    model = stateful_set(2, updateStrategy={"type": "OnDelete"})
    arrive(model)
    model.change(image="v2")
    arrive(model)
    assert model.images(model.pods()) == ["v1", "v1"]
    model.registry.remove(PODS, "d", "web-1")
    arrive(model)
    assert model.images(model.pods()) == ["v1", "v2"]


def test_scaling_down_halts_while_members_further_down_are_unwell() -> None:
    model = stateful_set(3)
    arrive(model)
    for pod in model.pods():
        model.report(pod, ready=False)
    model.change(replicas=0)
    model.settle()
    assert not [pod for pod in model.pods() if pods.is_deleting(pod)]
    for pod in model.pods():
        model.report(pod)
    arrive(model)
    assert names(model) == []


def test_a_failed_pod_is_made_again_under_its_name() -> None:
    model = stateful_set(1)
    arrive(model)
    uid = model.pods()[0]["metadata"]["uid"]
    model.report(model.pods()[0], "Failed")
    arrive(model)
    assert [pod["metadata"]["uid"] == uid for pod in model.pods()] == [False]
    assert "RecreatingFailedPod" in [event.reason for event in model.registry.events]


def test_a_name_that_somebody_else_has_is_waited_for() -> None:
    model = stateful_set(1)
    other = {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "other", "controller": True}
    stranger: Object = {"metadata": {"name": "web-0", "namespace": "d", "ownerReferences": [other]}, "spec": {}}
    model.registry.put(PODS, {"apiVersion": "v1", "kind": "Pod", **stranger})
    for _ in range(3):
        model.step()
    assert model.registry.plan(model.reconciler, KEY).again_s == NAME_TAKEN_S
    assert any("somebody else" in event.message for event in model.registry.events)
    model.registry.remove(PODS, "d", "web-0")
    arrive(model)
    assert names(model) == ["web-0"]


def test_the_next_one_waits_for_min_ready_seconds() -> None:
    model = stateful_set(2, minReadySeconds=30)
    model.settle()
    advance(model)
    model.settle()
    assert names(model) == ["web-0"]
    assert model.registry.plan(model.reconciler, KEY).again_s == 30
    model.registry.now += 30
    model.settle()
    assert names(model) == ["web-0", "web-1"]


CLAIM = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}


def claims(model: WorkloadModel) -> dict[str, list[str]]:
    """Names of claims and the kinds of their owners."""
    found = [entry.decode()["metadata"] for entry in model.registry.list(PERSISTENT_VOLUME_CLAIMS)]
    return {meta["name"]: [each["kind"] for each in meta.get("ownerReferences") or ()] for meta in found}


def test_claims_are_made_once_and_outlive_their_pods() -> None:
    model = stateful_set(2, volumeClaimTemplates=[CLAIM])
    arrive(model)
    assert claims(model) == {"data-web-0": [], "data-web-1": []}
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}
    assert model.pods()[0]["spec"]["volumes"] == [volume]
    model.change(replicas=1)
    arrive(model)
    assert claims(model) == {"data-web-0": [], "data-web-1": []}


def test_claims_go_with_whom_the_policy_says() -> None:
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    model = stateful_set(2, volumeClaimTemplates=[CLAIM], persistentVolumeClaimRetentionPolicy=policy)
    arrive(model)
    assert claims(model) == {"data-web-0": ["StatefulSet"], "data-web-1": ["StatefulSet"]}
    model.change(replicas=1)
    model.settle()
    assert claims(model) == {"data-web-0": ["StatefulSet"], "data-web-1": ["Pod"]}
    model.change(replicas=2)
    arrive(model)
    assert claims(model) == {"data-web-0": ["StatefulSet"], "data-web-1": ["StatefulSet"]}


def test_templates_are_kept_for_rollback() -> None:
    model = stateful_set(1, revisionHistoryLimit=1)
    for image in ("v1", "v2", "v3", "v1"):
        model.change(image=image)
        arrive(model)
    listed = [entry.decode() for entry in model.registry.list(CONTROLLER_REVISIONS)]
    assert max(each["revision"] for each in listed) == 4
    assert len(listed) == 2


@pytest.mark.parametrize("most", [1, 2])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_updates_keep_order_and_bounds_at_every_step(most: int, data: st.DataObject) -> None:
    policy = data.draw(st.sampled_from(["OrderedReady", "Parallel"]))
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": most}}
    model = stateful_set(4, podManagementPolicy=policy, updateStrategy=strategy)
    arrive(model)
    model.change(image="v2")
    for _ in range(data.draw(st.integers(5, 40))):
        waiting = [pod for pod in model.pods() if pods.is_deleting(pod) or not pods.is_ready(pod)]
        steps: list[Object | None] = [None, *waiting]
        chosen = steps[data.draw(st.integers(0, len(steps) - 1))]
        if chosen is None:
            model.step(data.draw(st.integers(0, 3)))
        elif pods.is_deleting(chosen):
            model.let_go(chosen)
        else:
            model.run(chosen, "n1")
        ready = [pod for pod in model.active() if pods.is_ready(pod)]
        assert len(ready) >= 4 - most
        images = model.images(model.active())
        assert images == sorted(images), "later ordinals are updated first"
    arrive(model)
    assert model.images(model.pods()) == ["v2"] * 4
