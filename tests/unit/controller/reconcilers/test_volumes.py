"""Claims and volumes on a model registry: who gets which, what happens when one of the two goes."""

from typing import Any

import pytest

from controller.kinds import claims
from controller.kinds.kind import Object
from controller.reconcilers.ephemeral_volume import EphemeralVolumeReconciler
from controller.reconcilers.volume_binding import PersistentVolumeBinder
from controller.reconcilers.volume_protection import ClaimProtectionReconciler, VolumeProtectionReconciler
from controller.runtime.reconciler import Reconciler
from controller.runtime.resources import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
    key_of,
)
from controller.runtime.writes import Delete, EmitEvent, Patch
from tests.support.model_registry import ModelRegistry

WORLD: tuple[Reconciler, ...] = (PersistentVolumeBinder(), ClaimProtectionReconciler(), VolumeProtectionReconciler())


def storage_class(name: str = "local", provisioner: str = claims.PROVISIONER, **rest: Any) -> Object:
    annotations = {claims.DEFAULT_CLASS: "true"} if name == "local" else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": provisioner,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        **rest,
    }


def claim(name: str = "data", size: str = "1Gi", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default", "finalizers": [claims.CLAIM_PROTECTION]},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            "volumeMode": "Filesystem",
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def volume(name: str, size: str = "1Gi", host: str = "", **spec: Any) -> Object:
    term = {"matchExpressions": [{"key": claims.HOSTNAME, "operator": "In", "values": [host]}]}
    affinity = {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}} if host else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "finalizers": [claims.VOLUME_PROTECTION]},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": size},
            "hostPath": {"path": f"/srv/{name}"},
            "persistentVolumeReclaimPolicy": "Retain",
            "volumeMode": "Filesystem",
            **affinity,
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def node(name: str) -> Object:
    labels = {claims.HOSTNAME: name}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {}}


def pod(claim_name: str, host: str = "host-1") -> Object:
    source = {"persistentVolumeClaim": {"claimName": claim_name}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": host, "containers": [{"name": "c"}], "volumes": [{"name": "v", **source}]},
    }


def settle(registry: ModelRegistry) -> None:
    """Until nothing but words is planned."""
    for _ in range(50):
        wrote = 0
        for reconciler in WORLD:
            for resource in (PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES):
                if resource not in reconciler.watches:
                    continue
                for obj in registry.view.objects(resource):
                    plan = registry.plan(reconciler, key_of(obj))
                    for write in plan.writes:
                        registry.apply(write)
                        event = None if isinstance(write, EmitEvent) else write.event
                        if event is not None:
                            registry.events.append(event)
                        wrote += not isinstance(write, EmitEvent)
        if not wrote:
            return
    raise AssertionError("no fixed point")


def get_claim(registry: ModelRegistry, name: str = "data") -> Object:
    found = registry.view.get(PERSISTENT_VOLUME_CLAIMS, "default", name)
    assert found is not None
    return found


def phase(registry: ModelRegistry, name: str) -> str:
    found = registry.view.get(PERSISTENT_VOLUMES, "", name)
    return "" if found is None else claims.phase_of(found)


def select(registry: ModelRegistry, host: str, name: str = "data") -> None:
    metadata = {"annotations": {claims.SELECTED_NODE: host}}
    registry.apply(Patch(PERSISTENT_VOLUME_CLAIMS, "default", name, {"metadata": metadata}))


def delete_claim(registry: ModelRegistry, name: str = "data") -> None:
    uid = get_claim(registry, name)["metadata"]["uid"]
    registry.apply(Delete(PERSISTENT_VOLUME_CLAIMS, "default", name, uid))


def reasons(registry: ModelRegistry) -> list[str]:
    return [event.reason for event in registry.events]


@pytest.mark.parametrize(
    ("wanted", "volumes", "chosen"),
    [
        (claim(), [volume("big", "5Gi"), volume("small", "2Gi"), volume("tiny", "1Mi")], "small"),
        (claim(), [volume("a", storageClassName="fast"), volume("b")], "b"),
        (claim(storageClassName="fast"), [volume("a", storageClassName="fast"), volume("b")], "a"),
        (claim(accessModes=["ReadWriteMany"]), [volume("a"), volume("b", accessModes=["ReadWriteMany"])], "b"),
        (claim(volumeMode="Block"), [volume("a")], ""),
        (claim(selector={"matchLabels": {"a": "b"}}), [volume("a")], ""),
        (claim(volumeName="big"), [volume("big", "5Gi"), volume("small")], "big"),
        (claim(), [volume("a", claimRef={"namespace": "default", "name": "other"})], ""),
        (
            claim(),
            [volume("a"), volume("mine", "9Gi", claimRef={"namespace": "default", "name": "data"})],
            "mine",
        ),
    ],
)
def test_static_volumes(wanted: Object, volumes: list[Object], chosen: str) -> None:
    registry = ModelRegistry()
    registry.put(PERSISTENT_VOLUME_CLAIMS, wanted)
    for each in volumes:
        registry.put(PERSISTENT_VOLUMES, each)
    settle(registry)
    found = get_claim(registry)
    assert found["spec"].get("volumeName", "") == chosen
    assert claims.phase_of(found) == ("Bound" if chosen else "Pending")
    for each in volumes:
        name = each["metadata"]["name"]
        assert phase(registry, name) == ("Bound" if name == chosen else "Available")
    if chosen:
        assert found["status"]["capacity"] == registry.view.get(PERSISTENT_VOLUMES, "", chosen)["spec"]["capacity"]  # type: ignore[index]


def test_life_of_a_provisioned_volume() -> None:
    """Waits for its consumer, is made on the selected node, stays while a pod uses the claim, goes with the claim."""
    registry = ModelRegistry()
    registry.put(STORAGE_CLASSES, storage_class())
    registry.put(NODES, node("host-1"))
    registry.put(PERSISTENT_VOLUME_CLAIMS, claim())
    settle(registry)
    assert get_claim(registry)["spec"]["storageClassName"] == "local", "the default, also for a claim from before it"
    assert not registry.view.objects(PERSISTENT_VOLUMES)
    assert reasons(registry)[-1] == "WaitForFirstConsumer"
    select(registry, "host-1")
    settle(registry)
    assert "ProvisioningSucceeded" in reasons(registry)
    (made,) = registry.view.objects(PERSISTENT_VOLUMES)
    name = made["metadata"]["name"]
    assert claims.phase_of(made) == claims.phase_of(get_claim(registry)) == "Bound"
    values = made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"]
    assert values == ["host-1"]
    registry.put(PODS, pod("data"))
    delete_claim(registry)
    settle(registry)
    assert "deletionTimestamp" in get_claim(registry)["metadata"], "in use"
    assert phase(registry, name) == "Bound"
    registry.remove(PODS, "default", "p")
    settle(registry)
    assert registry.view.get(PERSISTENT_VOLUME_CLAIMS, "default", "data") is None
    (made,) = registry.view.objects(PERSISTENT_VOLUMES)
    assert made["metadata"]["finalizers"] == [claims.PROVISIONER], "only its host has yet to remove the data"
    assert "deletionTimestamp" in made["metadata"]


def test_data_of_a_host_that_is_gone_are_given_up_in_the_end() -> None:
    registry = ModelRegistry()
    registry.put(STORAGE_CLASSES, storage_class())
    registry.put(NODES, node("host-1"))
    registry.put(PERSISTENT_VOLUME_CLAIMS, claim(storageClassName="local"))
    select(registry, "host-1")
    settle(registry)
    delete_claim(registry)
    settle(registry)
    registry.remove(NODES, "", "host-1")
    settle(registry)
    assert registry.view.objects(PERSISTENT_VOLUMES), "the host may come back"
    registry.now += 301
    settle(registry)
    assert not registry.view.objects(PERSISTENT_VOLUMES)


@pytest.mark.parametrize(
    ("policy", "after", "reason"),
    [
        ("Retain", "Released", ""),
        ("Delete", "Failed", "VolumeFailedDelete"),
        ("Recycle", "Failed", "VolumeFailedRecycle"),
    ],
)
def test_static_volumes_are_never_removed(policy: str, after: str, reason: str) -> None:
    registry = ModelRegistry()
    registry.put(PERSISTENT_VOLUMES, volume("a", persistentVolumeReclaimPolicy=policy))
    registry.put(PERSISTENT_VOLUME_CLAIMS, claim())
    settle(registry)
    delete_claim(registry)
    settle(registry)
    assert phase(registry, "a") == after
    assert not reason or reason in reasons(registry)
    registry.put(PERSISTENT_VOLUME_CLAIMS, claim())
    settle(registry)
    assert claims.phase_of(get_claim(registry)) == "Pending", "a namesake does not get the data of another"


def test_a_claim_that_has_lost_its_volume() -> None:
    registry = ModelRegistry()
    registry.put(PERSISTENT_VOLUMES, volume("a"))
    registry.put(PERSISTENT_VOLUME_CLAIMS, claim())
    settle(registry)
    registry.remove(PERSISTENT_VOLUMES, "", "a")
    settle(registry)
    assert claims.phase_of(get_claim(registry)) == "Lost"
    assert reasons(registry)[-1] == "ClaimLost"


@pytest.mark.parametrize(
    ("change", "made", "reason"),
    [
        ({"accessModes": ["ReadWriteMany"]}, storage_class(), "ProvisioningFailed"),
        ({"volumeMode": "Block"}, storage_class(), "ProvisioningFailed"),
        ({}, storage_class(volumeBindingMode="Immediate"), "ProvisioningFailed"),
        ({}, storage_class(provisioner="example.org/disks", volumeBindingMode="Immediate"), "ExternalProvisioning"),
        ({"storageClassName": "absent"}, storage_class(), "ProvisioningFailed"),
        ({"storageClassName": ""}, storage_class(), "FailedBinding"),
        ({"volumeName": "taken"}, storage_class(), "FailedBinding"),
        ({"volumeName": "small"}, storage_class(), "VolumeMismatch"),
    ],
)
def test_why_a_claim_is_pending(change: Object, made: Object, reason: str) -> None:
    registry = ModelRegistry()
    registry.put(STORAGE_CLASSES, made)
    ref = {"namespace": "default", "name": "other"}
    registry.put(PERSISTENT_VOLUMES, volume("taken", storageClassName="local", claimRef=ref))
    registry.put(PERSISTENT_VOLUMES, volume("small", "1Mi", storageClassName="local"))
    registry.put(PERSISTENT_VOLUME_CLAIMS, claim(**{"storageClassName": "local", **change}))
    settle(registry)
    assert claims.phase_of(get_claim(registry)) == "Pending"
    assert reasons(registry)[-1] == reason


def test_a_volume_that_another_claim_has_taken_sends_the_pod_to_another_node() -> None:
    registry = ModelRegistry()
    registry.put(STORAGE_CLASSES, storage_class("disks", "kubernetes.io/no-provisioner"))
    registry.put(NODES, node("host-1"))
    registry.put(PERSISTENT_VOLUMES, volume("a", host="host-1", storageClassName="disks"))
    for name in ("data", "more"):
        registry.put(PERSISTENT_VOLUME_CLAIMS, claim(name, storageClassName="disks"))
        settle(registry)
        select(registry, "host-1", name)
        settle(registry)
    assert claims.phase_of(get_claim(registry, "data")) == "Bound"
    assert not claims.annotation(get_claim(registry, "more"), claims.SELECTED_NODE)


def test_ephemeral_volumes_have_claims_of_their_own() -> None:
    registry = ModelRegistry()
    spec = claim()["spec"]
    owner = pod("unused")
    template = {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}
    owner["spec"]["volumes"] = [{"name": "scratch", "ephemeral": template}]
    stored = registry.put(PODS, owner)
    reconciler = EphemeralVolumeReconciler()
    assert registry.run(reconciler, "default/p") == 1
    assert registry.run(reconciler, "default/p") == 0
    made = get_claim(registry, "p-scratch")
    assert claims.is_made_for(made, stored)
    assert made["metadata"]["labels"] == {"a": "b"}
    assert made["spec"] == spec
