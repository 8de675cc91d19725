"""What claims say about nodes: where a pod may go, which words it waits with, what the chosen node is written on."""

from typing import Any

import pytest

from controller.kinds.kind import Object
from controller.runtime.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from controller.scheduler import volumes
from controller.scheduler.model import needs_of
from controller.scheduler.snapshot import Snapshot
from controller.scheduler.volumes import PodVolumes
from tests.support.model_registry import ModelRegistry
from tests.unit.controller.reconcilers.test_volumes import claim, node, pod, select, settle, storage_class, volume

HOSTS = ("host-1", "host-2")


def world(*objects: Object) -> ModelRegistry:
    registry = ModelRegistry()
    registry.put(STORAGE_CLASSES, storage_class())
    registry.put(STORAGE_CLASSES, storage_class("disks", "kubernetes.io/no-provisioner"))
    for host in HOSTS:
        registry.put(NODES, node(host))
    for each in objects:
        kind = each["kind"]
        registry.put(PERSISTENT_VOLUMES if kind == "PersistentVolume" else PERSISTENT_VOLUME_CLAIMS, each)
    settle(registry)
    return registry


def look(registry: ModelRegistry, *names: str, **extra: Any) -> PodVolumes:
    sources = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    wanted = pod("unused", host="")
    wanted["metadata"] |= {"name": "wanted", "uid": "wanted"}
    wanted["spec"]["volumes"] = [*sources, *extra.get("more", ())]
    snapshot = Snapshot()
    for host in HOSTS:
        snapshot.put_node(node(host))
    return volumes.look(registry.view, needs_of(wanted), snapshot.nodes())


@pytest.mark.parametrize(
    ("objects", "blocked"),
    [
        ([], 'persistentvolumeclaim "data" not found'),
        ([claim(storageClassName="")], "pod has unbound immediate PersistentVolumeClaims"),
        ([claim(storageClassName="absent")], "pod has unbound immediate PersistentVolumeClaims"),
        ([claim(storageClassName="local", volumeName="absent")], "pod has unbound immediate PersistentVolumeClaims"),
        ([claim(storageClassName="local")], ""),
        ([volume("v"), claim(storageClassName="")], ""),
    ],
)
def test_no_node_can_take_the_pod(objects: list[Object], blocked: str) -> None:
    assert look(world(*objects), "data").blocked == blocked


def test_a_claim_that_is_deleted_or_has_lost_its_volume_takes_no_pods() -> None:
    registry = world(volume("v"), claim(storageClassName=""))
    registry.put(PODS, pod("data"))
    found = registry.view.get(PERSISTENT_VOLUME_CLAIMS, "default", "data")
    assert found is not None
    registry.put(
        PERSISTENT_VOLUME_CLAIMS,
        {**found, "metadata": {**found["metadata"], "deletionTimestamp": "2030-01-01T00:00:00Z"}},
    )
    assert look(registry, "data").blocked == 'persistentvolumeclaim "data" is being deleted'
    registry.remove(PERSISTENT_VOLUMES, "", "v")
    assert look(registry, "data").blocked == 'persistentvolumeclaim "data" bound to non-existent persistentvolume "v"'


def test_an_exclusive_claim_has_one_pod() -> None:
    modes = {"accessModes": ["ReadWriteOncePod"], "storageClassName": ""}
    registry = world(volume("v", accessModes=["ReadWriteOncePod"]), claim(**modes))
    assert not look(registry, "data").blocked
    registry.put(PODS, pod("data"))
    assert look(registry, "data").blocked == volumes.EXCLUSIVE


def test_an_ephemeral_volume_waits_for_its_own_claim() -> None:
    more = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}]
    registry = world()
    text = 'waiting for ephemeral volume controller to create the persistentvolumeclaim "wanted-scratch"'
    assert look(registry, more=more).blocked == text
    registry.put(PERSISTENT_VOLUME_CLAIMS, claim("wanted-scratch", storageClassName="local"))
    assert "pod is not owner" in look(registry, more=more).blocked


def test_bound_volumes_hold_the_pod_where_they_are() -> None:
    registry = world(volume("v", host="host-2"), claim(storageClassName=""))
    found = look(registry, "data")
    assert found.against == {"host-1": volumes.NOT_REACHED}
    assert not found.unbound


def test_claims_that_wait_are_given_the_nodes_where_there_is_something_for_them() -> None:
    first, second = claim("a", storageClassName="disks"), claim("b", storageClassName="disks")
    disks = [
        volume("v1", host="host-1", storageClassName="disks"),
        volume("v2", host="host-2", storageClassName="disks"),
    ]
    registry = world(first, second, disks[0])
    assert look(registry, "a").against == {"host-2": volumes.NONE_FREE}
    assert look(registry, "a", "b").against == dict.fromkeys(HOSTS, volumes.NONE_FREE), (
        "one volume is not enough for two"
    )
    registry = world(first, second, *disks, volume("v3", host="host-2", storageClassName="disks"))
    found = look(registry, "a", "b")
    assert found.against == {"host-1": volumes.NONE_FREE}
    assert {each["metadata"]["name"] for each in found.lacking("host-2")} == {"a", "b"}
    registry = world(claim(storageClassName="local", accessModes=["ReadWriteMany"]))
    assert look(registry, "data").against == dict.fromkeys(HOSTS, volumes.NONE_FREE), "none can be made"


def test_a_volume_kept_for_a_claim_that_it_is_too_small_for_is_no_volume() -> None:
    """Else scheduler and binder would send the pod to and fro for ever."""
    ref = {"claimRef": {"namespace": "default", "name": "data"}}
    small = volume("v", "1Mi", host="host-1", storageClassName="disks", **ref)
    registry = world(small, claim(storageClassName="disks"))
    assert look(registry, "data").against == dict.fromkeys(HOSTS, volumes.NONE_FREE)


def test_a_claim_that_is_mounted_twice_needs_one_volume() -> None:
    registry = world(claim(storageClassName="disks"), volume("v", host="host-1", storageClassName="disks"))
    more = [{"name": "again", "persistentVolumeClaim": {"claimName": "data"}}]
    assert look(registry, "data", more=more).against == {"host-2": volumes.NONE_FREE}


def test_a_selected_node_is_kept_and_a_binding_is_waited_for() -> None:
    registry = world(claim(storageClassName="local"))
    select(registry, "host-2")
    found = look(registry, "data")
    assert found.selected == "host-2"
    assert not found.lacking("host-2")
    assert found.lacking("host-1")
    settle(registry)
    assert look(registry, "data").against == {"host-1": volumes.NOT_REACHED}
