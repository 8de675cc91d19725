"""Claims, volumes and the pods that wait for them, on a real etcd through the real API; only the hosts are hollow."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from common.clock import SystemClock
from common.kube import KubeClient, KubeError
from common.tls import client_context
from controller.api.authz import Authorization
from controller.kinds import claims
from controller.kinds.kind import Object
from controller.runtime.resources import EVENTS, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STATEFUL_SETS
from spherelet.volumes.claims import Claims, Directory
from spherelet.volumes.reclaim import Reclaimer
from tests.integration.controller.test_workloads import World
from tests.integration.controller.test_workloads import world as world
from tests.support.pki import TestCa

pytestmark = pytest.mark.integration


RESOURCES = {
    "PersistentVolume": PERSISTENT_VOLUMES,
    "PersistentVolumeClaim": PERSISTENT_VOLUME_CLAIMS,
    "Pod": PODS,
    "StatefulSet": STATEFUL_SETS,
}


def claim(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec},
    }


def pod(name: str, claim_name: str, **spec: Any) -> Object:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}
    mounts = [{"name": "data", "mountPath": "/data"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "containers": [{"name": "c", "image": "busybox:1", "volumeMounts": mounts}],
            "volumes": [volume],
            **spec,
        },
    }


async def create(world: World, obj: Object) -> None:
    await world.server.local.create(RESOURCES[obj["kind"]], obj)


def find(world: World, resource: Any, name: str, namespace: str = "default") -> Object | None:
    entry = world.server.api.ports.cache.get(resource, namespace, name)
    return None if entry is None else entry.decode()


def node_of(world: World, name: str) -> str:
    found = find(world, PODS, name)
    return "" if found is None else found["spec"].get("nodeName", "")


def failed_scheduling(world: World, name: str) -> str:
    for entry in world.entries(EVENTS, "default"):
        event = entry.decode()
        if event["involvedObject"]["name"] == name and event["reason"] == "FailedScheduling":
            return str(event["message"])
    return ""


async def test_stateful_set_with_claims(world: World) -> None:
    """Each pod gets its claim, its volume where it runs, and the same ones when it comes again."""
    kubectl = world.server.kubectl
    template = {"metadata": {"name": "data"}, "spec": claim("x")["spec"]}
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": 2,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {
                    "containers": [
                        {"name": "c", "image": "busybox:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
                    ]
                },
            },
            "volumeClaimTemplates": [template],
        },
    }
    await create(world, stateful)
    world.restart()
    await world.until(lambda: node_of(world, "db-0") and node_of(world, "db-1"))
    before = {name: node_of(world, name) for name in ("db-0", "db-1")}
    for name, host in before.items():
        bound = find(world, PERSISTENT_VOLUME_CLAIMS, f"data-{name}")
        assert bound is not None
        assert claims.phase_of(bound) == "Bound"
        volume = find(world, PERSISTENT_VOLUMES, claims.volume_of(bound), "")
        assert volume is not None
        assert volume["metadata"]["labels"][claims.HOST_LABEL] == host
    old = find(world, PODS, "db-0")
    assert old is not None
    await kubectl("delete", "pod", "db-0", "--wait=false")
    await world.until(
        lambda: node_of(world, "db-0") and find(world, PODS, "db-0")["metadata"]["uid"] != old["metadata"]["uid"]  # type: ignore[index]
    )
    assert node_of(world, "db-0") == before["db-0"], "where its data are"
    listed = await kubectl("get", "pvc,pv,sc")
    assert "local (default)" in listed
    assert "sphere.io/local" in listed
    assert listed.count("Bound") == 4


async def test_deleted_claim_waits_for_its_pod_and_its_host_removes_the_data(
    world: World, pki: TestCa, tmp_path: Path
) -> None:
    """The host's part is spherelet's own, with the rights and the certificate of a node."""
    server, kubectl = world.server, world.server.kubectl
    server.api.authorizer = Authorization(server.api.ports.cache)
    await create(world, claim("data"))
    await create(world, pod("p", "data", nodeSelector={claims.HOSTNAME: "host-1"}))
    await world.until(lambda: node_of(world, "p"))
    bound = find(world, PERSISTENT_VOLUME_CLAIMS, "data")
    assert bound is not None
    name = claims.volume_of(bound)
    await kubectl("delete", "pvc", "data", "--wait=false")
    assert "Terminating" in await kubectl("get", "pvc", "data")
    await create(world, pod("late", "data"))
    await world.until(lambda: 'persistentvolumeclaim "data" is being deleted' in failed_scheduling(world, "late"))
    await kubectl("delete", "pod", "p", "--wait=false")
    await world.until(lambda: find(world, PERSISTENT_VOLUME_CLAIMS, "data") is None)

    def only_ours() -> bool:
        volume = find(world, PERSISTENT_VOLUMES, name, "")
        return volume is not None and volume["metadata"].get("finalizers") == [claims.PROVISIONER]

    await world.until(only_ours)
    (tmp_path / "persistent" / name).mkdir(parents=True)
    kube = KubeClient(server.url, client_context(pki.issue("system:node:host-1", "system:nodes")))
    reclaimer = Reclaimer(kube, SystemClock(), "host-1", tmp_path / "persistent", tmp_path / "pods")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reclaimer.run())
        await world.until(lambda: find(world, PERSISTENT_VOLUMES, name, "") is None)
        assert not (tmp_path / "persistent" / name).exists()
        with pytest.raises(KubeError) as refused:
            await kube.get("/api/v1/namespaces/default/persistentvolumeclaims/of-nobody")
        assert refused.value.code == 403
        task.cancel()
    await kube.close()


async def test_a_host_reads_the_claims_of_its_pods(world: World, pki: TestCa) -> None:
    server = world.server
    server.api.authorizer = Authorization(server.api.ports.cache)
    await create(world, claim("data"))
    await create(world, pod("p", "data", nodeSelector={claims.HOSTNAME: "host-1"}))
    await world.until(lambda: node_of(world, "p"))
    wanted = find(world, PODS, "p")
    assert wanted is not None
    kube = KubeClient(server.url, client_context(pki.issue("system:node:host-1", "system:nodes")))
    try:
        found = await Claims(kube, "host-1", Path("/persistent")).find(wanted, wanted["spec"]["volumes"][0])
    finally:
        await kube.close()
    bound = find(world, PERSISTENT_VOLUME_CLAIMS, "data")
    assert bound is not None
    assert found == Directory(Path("/persistent") / claims.volume_of(bound), "made")


async def test_words_for_pods_that_wait_and_what_wakes_them(world: World) -> None:
    await create(world, pod("p", "data"))
    await world.until(lambda: 'persistentvolumeclaim "data" not found' in failed_scheduling(world, "p"))
    await create(world, pod("q", "static"))
    await create(world, claim("static", storageClassName=""))
    text = (
        "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/3 nodes are available"
    )
    await world.until(lambda: find(world, PODS, "q") and "immediate" in str(find(world, PODS, "q")["status"]))  # type: ignore[index]
    conditions = str(find(world, PODS, "q")["status"]["conditions"])  # type: ignore[index]
    assert text in conditions
    await create(world, claim("data"))
    await world.until(lambda: node_of(world, "p"))
    term = {"matchExpressions": [{"key": claims.HOSTNAME, "operator": "In", "values": ["host-2"]}]}
    await create(
        world,
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "disk"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "2Gi"},
                "local": {"path": "/srv/disk"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            },
        },
    )
    await world.until(lambda: node_of(world, "q"))
    assert node_of(world, "q") == "host-2"
    await create(world, pod("r", "static", nodeSelector={claims.HOSTNAME: "host-1"}))
    conflict = "1 node(s) didn't match PersistentVolume's node affinity"
    await world.until(lambda: conflict in failed_scheduling(world, "r"))


async def test_ephemeral_volume_goes_with_its_pod(world: World) -> None:
    wanted = pod("p", "unused")
    wanted["spec"]["volumes"] = [
        {"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": claim("x")["spec"]}}},
    ]
    await create(world, wanted)
    await world.until(lambda: node_of(world, "p"))
    assert find(world, PERSISTENT_VOLUME_CLAIMS, "p-data") is not None
    await world.server.kubectl("delete", "pod", "p", "--wait=false")
    await world.until(lambda: find(world, PERSISTENT_VOLUME_CLAIMS, "p-data") is None)


async def test_pods_that_keep_apart_have_their_volumes_apart(world: World) -> None:
    """All are decided on before the first is bound: whose claims are being bound somewhere is there for the others."""
    term = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": claims.HOSTNAME}
    far = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    for index in range(3):
        await create(world, claim(f"data-{index}"))
    async with asyncio.TaskGroup() as group:
        for index in range(3):
            wanted = pod(f"db-{index}", f"data-{index}", affinity=far)
            wanted["metadata"]["labels"] = {"app": "db"}
            group.create_task(create(world, wanted))
    await world.until(lambda: all(node_of(world, f"db-{index}") for index in range(3)))
    assert {node_of(world, f"db-{index}") for index in range(3)} == {"host-1", "host-2", "host-3"}
