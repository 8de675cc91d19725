"""Controllers and scheduler on a real etcd through the real API; only the hosts are hollow."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from controller.api import eviction
from controller.api.status import ApiError
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions
from controller.runtime import assembly
from controller.runtime.resources import (
    CONFIG_MAPS,
    CRON_JOBS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    JOBS,
    NAMESPACES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    PORTS,
    REPLICA_SETS,
    SEGMENTS,
    SERVICE_ACCOUNTS,
)
from controller.runtime.writes import MERGE_PATCH
from controller.scheduler.binding import Binder
from controller.store.cache import Change
from controller.store.entry import Entry
from tests.integration.conftest import ApiServer
from tests.support.controller_ports import controller_ports
from tests.support.hollow_hosts import HollowHosts

pytestmark = pytest.mark.integration


@dataclass
class World:
    """Everything running."""

    server: ApiServer
    hosts: HollowHosts
    restart: Callable[[], None]
    """Kill controllers and scheduler where they stand, and start fresh ones."""

    def pods(self, namespace: str = "default") -> list[Object]:
        return [e.decode() for e in self.entries(PODS, namespace) if not e.deleting]

    def entries(self, resource: Any, namespace: str | None = None) -> list[Entry]:
        return self.server.api.ports.cache.list(resource, namespace)

    async def until(self, what: Callable[[], Any], timeout_s: float = 15.0) -> Any:
        async with asyncio.timeout(timeout_s):
            while not (found := what()):  # noqa: ASYNC110 - what() looks at memory that another task changes
                await asyncio.sleep(0.02)
        return found


@pytest.fixture
async def world(api_server: ApiServer) -> AsyncIterator[World]:
    hosts = HollowHosts(api_server)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(hosts.run()), group.create_task(assembly.run(controller_ports(api_server)))]

        def restart() -> None:
            tasks.pop().cancel()
            tasks.append(group.create_task(assembly.run(controller_ports(api_server))))

        await hosts.register("host-1", "host-2", "host-3")
        try:
            yield World(api_server, hosts, restart)
        finally:
            for task in tasks:
                task.cancel()


def deployment(replicas: int = 3, image: str = "busybox:1") -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80}]}]},
            },
        },
    }


def images(world: World) -> list[str]:
    return sorted(pod["spec"]["containers"][0]["image"] for pod in world.pods())


async def test_life_of_a_deployment(world: World) -> None:
    """Create, spread, address, roll, roll back, scale, delete: with kubectl as a user would."""
    kubectl = world.server.kubectl
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [deployment(), service]})
    await kubectl("apply", "--validate=false", "-f", "-", stdin=both)
    assert "successfully rolled out" in await kubectl("rollout", "status", "deployment/web", "--timeout=20s")
    pods = world.pods()
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["host-1", "host-2", "host-3"]
    ports = [entry.decode() for entry in world.entries(PORTS, "default")]
    assert {port["spec"]["podUID"] for port in ports} == {pod["metadata"]["uid"] for pod in pods}
    assert len({port["spec"]["address"] for port in ports}) == 3

    def ready_endpoints() -> int:
        slices = [e.decode() for e in world.entries(ENDPOINT_SLICES, "default") if e.name.startswith("web-")]
        return sum(each["conditions"]["ready"] for one in slices for each in one.get("endpoints") or ())

    await world.until(lambda: ready_endpoints() == 3)

    await kubectl("set", "image", "deployment/web", "c=busybox:2")
    assert "successfully rolled out" in await kubectl("rollout", "status", "deployment/web", "--timeout=20s")
    await world.until(lambda: images(world) == ["busybox:2"] * 3)
    history = await kubectl("rollout", "history", "deployment/web")
    assert "1 " in history
    assert "2 " in history

    await kubectl("rollout", "undo", "deployment/web")
    assert "successfully rolled out" in await kubectl("rollout", "status", "deployment/web", "--timeout=20s")
    await world.until(lambda: images(world) == ["busybox:1"] * 3)
    assert len(world.entries(REPLICA_SETS, "default")) == 2

    await kubectl("scale", "deployment/web", "--replicas=5")
    await world.until(lambda: len(world.pods()) == 5)
    await kubectl("scale", "deployment/web", "--replicas=1")
    await world.until(lambda: len(world.pods()) == 1)

    await kubectl("delete", "deployment/web")
    await world.until(lambda: not world.entries(PODS, "default") and not world.entries(REPLICA_SETS, "default"))
    await world.until(lambda: not world.entries(PORTS, "default"))
    reasons = {entry.decode()["reason"] for entry in world.entries(EVENTS, "default")}
    assert {"ScalingReplicaSet", "SuccessfulCreate", "Scheduled"} <= reasons


def templated(kind: str, group: str, image: str, **spec: Any) -> str:
    """A manifest of a workload named ``web``, as text."""
    pod = {"containers": [{"name": "c", "image": image}], **spec.pop("pod", {})}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod}
    selector = {} if kind == "Job" else {"selector": {"matchLabels": {"app": "web"}}}
    meta = {"name": "web", "namespace": "default"}
    whole = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": meta, "spec": {**selector, **spec}}
    whole["spec"]["template"] = template
    return json.dumps(whole)


async def quiet(world: World) -> None:
    """Nothing is written any more: no controller fights with the API's own form of things."""

    async def rests() -> bool:
        before = world.server.api.ports.cache.revision
        await asyncio.sleep(0.7)
        return world.server.api.ports.cache.revision == before

    async with asyncio.timeout(15):
        while not await rests():
            pass


async def test_life_of_a_daemon_set(world: World) -> None:
    kubectl = world.server.kubectl
    await kubectl("apply", "--validate=false", "-f", "-", stdin=templated("DaemonSet", "apps", "busybox:1"))
    assert "successfully rolled out" in await kubectl("rollout", "status", "daemonset/web", "--timeout=20s")
    assert sorted(pod["spec"]["nodeName"] for pod in world.pods()) == ["host-1", "host-2", "host-3"]
    await quiet(world)
    await world.hosts.register("host-4")
    await world.until(lambda: len(world.pods()) == 4)
    await kubectl("set", "image", "daemonset/web", "c=busybox:2")
    assert "successfully rolled out" in await kubectl("rollout", "status", "daemonset/web", "--timeout=30s")
    await kubectl("rollout", "undo", "daemonset/web")
    assert "successfully rolled out" in await kubectl("rollout", "status", "daemonset/web", "--timeout=30s")
    await world.until(lambda: images(world) == ["busybox:1"] * 4)
    await quiet(world)
    await kubectl("delete", "daemonset/web")
    await world.until(lambda: not world.pods())


async def test_life_of_a_stateful_set(world: World) -> None:
    kubectl = world.server.kubectl
    manifest = templated("StatefulSet", "apps", "busybox:1", replicas=3, serviceName="web")
    await kubectl("apply", "--validate=false", "-f", "-", stdin=manifest)
    await kubectl("rollout", "status", "statefulset/web", "--timeout=20s")
    assert [pod["metadata"]["name"] for pod in world.pods()] == ["web-0", "web-1", "web-2"]
    await quiet(world)
    await kubectl("set", "image", "statefulset/web", "c=busybox:2")
    await kubectl("rollout", "status", "statefulset/web", "--timeout=20s")
    await world.until(lambda: images(world) == ["busybox:2"] * 3)
    await kubectl("rollout", "undo", "statefulset/web")
    await world.until(lambda: images(world) == ["busybox:1"] * 3)
    await kubectl("scale", "statefulset/web", "--replicas=1")
    await world.until(lambda: [pod["metadata"]["name"] for pod in world.pods()] == ["web-0"])
    await quiet(world)


async def test_life_of_a_job(world: World) -> None:
    kubectl = world.server.kubectl
    world.hosts.ends = {"good": "Succeeded", "bad": "Failed"}
    once = {"restartPolicy": "Never"}
    manifest = templated("Job", "batch", "good", pod=once, completions=5, parallelism=2, completionMode="Indexed")
    await kubectl("apply", "--validate=false", "-f", "-", stdin=manifest)
    await kubectl("wait", "--for=condition=Complete", "job/web", "--timeout=20s")
    status = json.loads(await kubectl("get", "job", "web", "-o", "json"))["status"]
    assert (status["succeeded"], status["completedIndexes"], status.get("failed")) == (5, "0-4", None)
    await quiet(world)
    await kubectl("delete", "job/web")
    await world.until(lambda: not world.entries(PODS, "default"))
    manifest = templated("Job", "batch", "bad", pod=once, backoffLimit=0)
    await kubectl("apply", "--validate=false", "-f", "-", stdin=manifest)
    await kubectl("wait", "--for=condition=Failed", "job/web", "--timeout=20s")
    await kubectl("patch", "job/web", "-p", '{"spec":{"ttlSecondsAfterFinished":0}}')
    await world.until(lambda: not world.entries(JOBS, "default") and not world.entries(PODS, "default"))


async def test_life_of_a_cron_job(world: World) -> None:
    kubectl = world.server.kubectl
    world.hosts.ends = {"good": "Succeeded"}
    job = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "good"}]}}}}
    spec = {"schedule": "@every 1s", "jobTemplate": job, "successfulJobsHistoryLimit": 100}
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick", "namespace": "default"}}
    await kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps({**cron, "spec": spec}))
    await world.until(lambda: "lastSuccessfulTime" in (world.entries(CRON_JOBS)[0].decode().get("status") or {}))
    await kubectl("create", "job", "now", "--from=cronjob/tick")
    await kubectl("wait", "--for=condition=Complete", "job/now", "--timeout=20s")
    await kubectl("delete", "cronjob/tick")
    await world.until(lambda: not world.entries(JOBS, "default") and not world.entries(PODS, "default"))


async def test_a_new_namespace_is_furnished_and_deleted_whole(world: World) -> None:
    local = world.server.local
    await local.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    await world.until(lambda: world.entries(SERVICE_ACCOUNTS, "shop") and world.entries(CONFIG_MAPS, "shop"))
    await world.until(lambda: [e for e in world.entries(SEGMENTS) if e.name == "shop"])
    made = deployment()
    made["metadata"]["namespace"] = "shop"
    await local.create(DEPLOYMENTS, made)
    await world.until(lambda: len([p for p in world.pods("shop") if p["status"].get("phase") == "Running"]) == 3)
    await world.server.kubectl("delete", "namespace", "shop", "--timeout=20s")
    assert not world.entries(PODS, "shop")
    assert not world.entries(DEPLOYMENTS, "shop")
    await world.until(lambda: not [e for e in world.entries(SEGMENTS) if e.name == "shop"])


async def test_a_pod_that_fits_nowhere_says_why(world: World) -> None:
    local = world.server.local
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "big", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "64"}}}]},
    }
    await local.create(PODS, pod)

    def message() -> str:
        for pod in world.pods():
            for condition in pod.get("status", {}).get("conditions") or ():
                if condition["type"] == "PodScheduled":
                    return str(condition.get("message", ""))
        return ""

    assert await world.until(message) == (
        "0/3 nodes are available: 3 Insufficient cpu. "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    await world.until(lambda: "FailedScheduling" in {e.decode()["reason"] for e in world.entries(EVENTS, "default")})
    await world.hosts.register("host-4", cpu="100")
    await world.until(lambda: world.pods()[0]["spec"].get("nodeName") == "host-4")


async def test_a_budget_is_spent_and_earned_back(world: World) -> None:
    eviction.install(world.server.api.routes)
    kubectl = world.server.kubectl
    selector = {"matchLabels": {"app": "web"}}
    meta = {"name": "web", "namespace": "default"}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta}
    budget["spec"] = {"selector": selector, "maxUnavailable": 1}
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [deployment(), budget]})
    await kubectl("apply", "--validate=false", "-f", "-", stdin=both)

    def allowed() -> int:
        found = world.entries(POD_DISRUPTION_BUDGETS)
        return (found[0].decode().get("status") or {}).get("disruptionsAllowed", 0) if found else 0

    async def evict(pod: Object) -> str:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {**meta, "name": pod["metadata"]["name"]}}
        path = f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}/eviction"
        return await kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body), check=False)

    await world.until(lambda: allowed() == 1)
    seen: list[Change] = []
    world.server.api.ports.cache.subscribe([PODS], seen.append)
    world.hosts.hold = {"busybox:1"}
    first, second, _ = world.pods()
    assert "Success" in await evict(first)
    marks = (change for change in seen if change.entry.uid == first["metadata"]["uid"] and change.entry.deleting)
    condition = conditions.find(next(marks).entry.decode()["status"]["conditions"], "DisruptionTarget")
    assert condition is not None
    assert condition["reason"] == "EvictionByEvictionAPI"
    assert "Cannot evict pod as it would violate the pod's disruption budget" in await evict(second)
    world.hosts.hold = set()
    world.hosts.look_again()
    await world.until(lambda: allowed() == 1)
    assert "Success" in await evict(second)


async def test_the_important_push_the_others_away_and_take_their_place(world: World) -> None:
    local = world.server.local
    for name, value in (("low", 1), ("high", 1000)):
        meta = {"name": name}
        kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": meta, "value": value}
        await local.create(ResourceKey("scheduling.k8s.io", "priorityclasses"), kind)

    async def make(name: str, priority: str) -> None:
        container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}}
        spec = {"priorityClassName": priority, "containers": [container]}
        meta = {"name": name, "namespace": "default"}
        await local.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    for number in range(3):
        await make(f"low-{number}", "low")
    await world.until(lambda: all(pod["spec"].get("nodeName") for pod in world.pods()) and len(world.pods()) == 3)
    await make("high", "high")
    await world.until(lambda: {p["metadata"]["name"]: p for p in world.pods()}["high"]["spec"].get("nodeName"))
    assert len(world.pods()) == 3
    await world.until(lambda: "Preempted" in {e.decode()["reason"] for e in world.entries(EVENTS, "default")})


async def test_who_waits_for_room_is_placed_at_once_when_there_is_some(world: World) -> None:
    """Also after many failures, when its backoff would be long."""
    local = world.server.local
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}}
    for name in ("a", "b", "c", "late"):
        meta = {"name": name, "namespace": "default"}
        spec = {"containers": [container]}
        await local.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    def waiting() -> list[str]:
        return [pod["metadata"]["name"] for pod in world.pods() if not pod["spec"].get("nodeName")]

    for number in range(4):
        await world.until(lambda: len(waiting()) == 1)
        gone = next(pod for pod in world.pods() if pod["spec"].get("nodeName"))["metadata"]
        await local.delete(PODS, "default", gone["name"], uid=gone["uid"])
        await world.until(lambda: not waiting(), 2.0)
        meta = {"name": f"next-{number}", "namespace": "default"}
        await local.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


async def test_a_bind_is_all_or_nothing_and_happens_once(world: World) -> None:
    ports = world.server.api.ports
    binder = Binder(ports.cache, ports.store, ports.clock, 28)
    world.hosts.hold.add("i")  # its host writes nothing of this pod
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "mine", "namespace": "default"},
        "spec": {"schedulerName": "other", "containers": [{"name": "c", "image": "i"}]},
    }
    await world.server.local.create(PODS, pod)
    await world.until(lambda: any(e.name == "default" for e in world.entries(SEGMENTS)))
    revision = await binder.bind("default", "mine", "host-2")
    await ports.cache.wait_revision(revision)
    bound = world.pods()[0]
    assert bound["spec"]["nodeName"] == "host-2"
    port = world.entries(PORTS, "default")[0]
    assert port.revision == revision == int(bound["metadata"]["resourceVersion"])
    with pytest.raises(ApiError, match="already assigned"):
        await binder.bind("default", "mine", "host-1")
    assert len(world.entries(PORTS, "default")) == 1


async def test_a_pod_that_comes_with_its_node_gets_an_address_there_once(world: World) -> None:
    def pod(name: str, node: str, **spec: Any) -> Object:
        meta = {"name": name, "namespace": "default"}
        spec |= {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}

    def running() -> set[str]:
        return {p["metadata"]["name"] for p in world.pods() if (p.get("status") or {}).get("phase") == "Running"}

    for one in (pod("a", "host-2"), pod("b", "host-3"), pod("c", "host-1", hostNetwork=True)):
        await world.server.local.create(PODS, one)
        world.restart()
    await world.until(lambda: running() == {"a", "b", "c"})
    world.restart()
    await world.server.local.create(PODS, pod("d", "host-3"))
    await world.until(lambda: "d" in running())
    ports = [entry.decode()["spec"] for entry in world.entries(PORTS, "default")]
    placed = [("a", "host-2"), ("b", "host-3"), ("d", "host-3")]
    assert sorted((port["podName"], port["host"]) for port in ports) == placed


async def test_controllers_killed_again_and_again_lose_and_double_nothing(world: World) -> None:
    local = world.server.local
    await local.create(DEPLOYMENTS, deployment(12))
    for _ in range(15):
        await asyncio.sleep(0.03)
        world.restart()

    def running() -> list[str]:
        return sorted(p["metadata"]["uid"] for p in world.pods() if (p.get("status") or {}).get("phase") == "Running")

    await world.until(lambda: len(running()) == 12)
    assert len(world.pods()) == 12
    before = running()
    world.restart()
    status = await world.until(
        lambda: (s := world.entries(DEPLOYMENTS, "default")[0].decode()["status"]).get("availableReplicas") == 12 and s
    )
    assert status["updatedReplicas"] == 12
    assert running() == before
    ports = [entry.decode()["spec"] for entry in world.entries(PORTS, "default")]
    assert sorted(port["podUID"] for port in ports) == before
    assert len(world.entries(REPLICA_SETS, "default")) == 1


async def test_a_pod_that_wants_a_taken_port_of_its_host_has_failed_before_it_begins(world: World) -> None:
    client = world.server.local

    async def make(name: str, **port: Any) -> None:
        ports = [{"containerPort": 80, "hostPort": 8080, **port}]
        spec = {"nodeName": "host-1", "containers": [{"name": "c", "image": "i", "ports": ports}]}
        meta = {"name": name, "namespace": "default"}
        await client.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    def status(name: str) -> Object:
        found = {pod["metadata"]["name"]: pod for pod in world.pods()}
        return dict(found[name].get("status") or {})

    await world.until(lambda: world.entries(SERVICE_ACCOUNTS, "default"))
    await make("first")
    await world.until(lambda: len(world.entries(PORTS)) == 1)
    await make("second")
    await world.until(lambda: status("second").get("phase") == "Failed")
    assert status("second")["reason"] == "NodePorts"
    await make("other", protocol="UDP")
    await world.until(lambda: len(world.entries(PORTS)) == 2)
    owners = {entry.decode()["spec"]["podName"] for entry in world.entries(PORTS)}
    assert owners == {"first", "other"}


async def test_a_gated_pod_is_placed_when_its_last_gate_opens(world: World) -> None:
    def scheduled() -> Any:
        return conditions.find((world.pods()[0].get("status") or {}).get("conditions"), "PodScheduled")

    gates = [{"name": "one.org/a"}, {"name": "one.org/b"}]
    spec = {"schedulingGates": gates, "containers": [{"name": "c", "image": "i"}]}
    meta = {"name": "p", "namespace": "default"}
    await world.until(lambda: world.entries(SERVICE_ACCOUNTS, "default"))
    await world.server.local.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    await world.until(lambda: world.pods() and scheduled()["reason"] == "SchedulingGated")
    for left in (gates[:1], []):
        assert not world.pods()[0]["spec"].get("nodeName")
        change = {"spec": {"schedulingGates": left or None}}
        await world.server.local.patch(PODS, "default", "p", change, MERGE_PATCH)
    await world.until(lambda: scheduled()["status"] == "True")
