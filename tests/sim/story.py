"""What happens in a run: a user who works, faults that strike, then quiet; and what must be true in the end."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from common.errors import Retryable
from common.messages import InterestItem, Scope, decode
from controller.api.status import ApiError
from controller.kinds.kind import Object
from controller.network.views import POLICIES
from controller.reconcilers import pods
from controller.reconcilers.conditions import is_true
from controller.runtime.resources import (
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    PORTS,
    REPLICA_SETS,
    SERVICES,
    STATEFUL_SETS,
)
from tests.sim.checkers import Violation
from tests.sim.host import Host
from tests.sim.world import CONVERGE_S, World

NAMES = ("red", "blue")
APPS = ("a", "b")
REQUEST_S = 10.0
REPLICAS_MAX = 4


class User:
    """Works through the API; remembers what was acknowledged."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng: random.Random = world.rng
        self.counted: dict[tuple[str, str], int] = {}
        """Counters of config maps: the highest value that the API acknowledged."""
        self._next = 0

    async def ask(self, what: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """One request. None when it failed, or nobody knows whether it did."""
        client = self._world.user()
        if client is None:
            return None
        try:
            async with asyncio.timeout(REQUEST_S):
                answer = await work(client)
        except (ApiError, Retryable, TimeoutError) as err:
            self._world.say(f"user: {what}: {type(err).__name__} {err}")
            return None
        self._world.say(f"user: {what}")
        return answer if answer is not None else True

    async def act(self, name: str) -> None:
        """One thing of the workload."""
        await getattr(self, name.replace("-", "_"))()

    def _app(self) -> tuple[str, str]:
        return self._rng.choice(NAMES), self._rng.choice(APPS)

    async def deploy(self) -> None:
        namespace, app = self._app()
        replicas = self._rng.randint(1, REPLICAS_MAX)
        await self.ask(
            f"deploy {app} x{replicas}", lambda c: c.create(DEPLOYMENTS, a_deployment(namespace, app, replicas))
        )

    async def scale(self) -> None:
        namespace, app = self._app()
        patch = {"spec": {"replicas": self._rng.randint(0, REPLICAS_MAX)}}
        await self.ask(f"scale {app} {patch}", lambda c: c.patch(DEPLOYMENTS, namespace, app, patch))

    async def roll(self) -> None:
        namespace, app = self._app()
        patch = self._new_template()
        await self.ask(f"roll {app}", lambda c: c.patch(DEPLOYMENTS, namespace, app, patch))

    async def undeploy(self) -> None:
        namespace, app = self._app()
        for obj in self._world.checkers.of(PODS):
            if obj["metadata"]["namespace"] == namespace and obj["metadata"].get("labels", {}).get("app") == app:
                self._world.checkers.user_deleted.add(obj["metadata"]["uid"])
        await self.ask(f"undeploy {app}", lambda c: c.delete(DEPLOYMENTS, namespace, app, propagation="Background"))

    async def daemon(self) -> None:
        """A DaemonSet, or a new template for it."""
        namespace = self._rng.choice(NAMES)
        obj = a_deployment(namespace, "daemon", 0)
        del obj["spec"]["replicas"]
        obj["kind"] = "DaemonSet"
        if await self.ask("daemon set", lambda c: c.create(DAEMON_SETS, obj)) is None:
            patch = self._new_template()
            await self.ask("roll daemon set", lambda c: c.patch(DAEMON_SETS, namespace, "daemon", patch))

    async def stateful(self) -> None:
        """A StatefulSet, or another size or template for it."""
        namespace = self._rng.choice(NAMES)
        obj = a_deployment(namespace, "db", self._rng.randint(1, 2))
        obj["kind"] = "StatefulSet"
        obj["spec"]["serviceName"] = "db"
        obj["spec"]["podManagementPolicy"] = self._rng.choice(["OrderedReady", "Parallel"])
        if await self.ask("stateful set", lambda c: c.create(STATEFUL_SETS, obj)) is None:
            patch = self._rng.choice([self._new_template(), {"spec": {"replicas": self._rng.randint(0, 3)}}])
            await self.ask(f"change stateful set {patch}", lambda c: c.patch(STATEFUL_SETS, namespace, "db", patch))

    async def dismiss(self) -> None:
        """Delete one of the two."""
        resource, name = self._rng.choice([(DAEMON_SETS, "daemon"), (STATEFUL_SETS, "db")])
        namespace = self._rng.choice(NAMES)
        await self.ask(f"dismiss {name}", lambda c: c.delete(resource, namespace, name, propagation="Background"))

    def _new_template(self) -> Object:
        self._next += 1
        return {"spec": {"template": {"metadata": {"annotations": {"turn": str(self._next)}}}}}

    async def delete_pod(self) -> None:
        found = [pod["metadata"] for pod in self._world.checkers.of(PODS)]
        if found:
            chosen = self._rng.choice(sorted(found, key=lambda meta: meta["uid"]))
            self._world.checkers.user_deleted.add(chosen["uid"])
            await self.ask("delete a pod", lambda c: c.delete(PODS, chosen["namespace"], chosen["name"]))

    async def policy(self) -> None:
        namespace, app = self._app()
        peer: Object = {"podSelector": {"matchLabels": {"app": self._rng.choice(APPS)}}}
        if self._rng.random() < 0.5:
            peer["namespaceSelector"] = {"matchLabels": {"team": self._rng.choice("xy")}}
        side = self._rng.choice(["ingress", "egress"])
        rule = {"from" if side == "ingress" else "to": [peer], "ports": [{"protocol": "TCP", "port": 80}]}
        spec = {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": [side.capitalize()], side: [rule]}
        obj = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"on-{app}", "namespace": namespace},
            "spec": spec,
        }
        if await self.ask(f"policy on {namespace}/{app}", lambda c: c.create(POLICIES, obj)) is None:
            await self.ask(f"replace policy on {namespace}/{app}", lambda c: c.update(POLICIES, obj))

    async def unpolicy(self) -> None:
        namespace, app = self._app()
        await self.ask(f"no policy on {app}", lambda c: c.delete(POLICIES, namespace, f"on-{app}"))

    async def label(self) -> None:
        patch = {"metadata": {"labels": {"team": self._rng.choice("xy")}}}
        await self.ask("label", lambda c: c.patch(NAMESPACES, "", self._rng.choice(NAMES), patch))

    async def service(self) -> None:
        namespace, app = self._app()
        obj = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": app, "namespace": namespace},
            "spec": {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": 80}]},
        }
        await self.ask(f"service {app}", lambda c: c.create(SERVICES, obj))

    async def count(self) -> None:
        """A write whose acknowledgement must hold."""
        namespace, name = self._rng.choice(NAMES), self._rng.choice(["x", "y"])
        self._next += 1
        value = self._next
        meta = {"name": name, "namespace": namespace}
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"value": str(value)}}
        if await self.ask(f"count {name} {value}", lambda c: c.update(CONFIG_MAPS, obj)) is None:
            await self.ask(f"make {name}", lambda c: _ensure(c, obj))
            return
        self.counted[namespace, name] = value


async def _ensure(client: Any, obj: Object) -> bool:
    try:
        await client.create(CONFIG_MAPS, obj)
    except ApiError as err:
        if err.reason != "AlreadyExists":
            raise
    return True


def a_deployment(namespace: str, app: str, replicas: int) -> Object:
    template = {
        "metadata": {"labels": {"app": app}},
        "spec": {
            "terminationGracePeriodSeconds": 15,
            "containers": [{"name": "main", "image": "busybox:1", "ports": [{"containerPort": 80}]}],
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": app, "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": template},
    }


# ---- faults ----------------------------------------------------------------------------------------------------


def strike(world: World, fault: str) -> None:
    """One fault happens now."""
    rng = world.rng
    host: Host = rng.choice(world.hosts)
    world.say(f"fault: {fault} {host.name}")
    match fault:
        case "controller-crash":
            world.kill("controller", rng.choice([0.0, 0.0, 20.0]))
        case "etcd-outage":
            if world.etcd.up:
                world.etcd.stop()
            else:
                world.etcd.restart_at(world.now())
        case "etcd-watches-break":
            world.etcd.break_watches()
        case "etcd-compaction":
            if world.etcd.revision > world.etcd.compacted + 1:
                world.etcd.break_watches()
                world.etcd.compact(world.etcd.revision - 1)
        case "broker-restart" | "broker-amnesia":
            if world.broker.up:
                world.broker.stop(forget=fault == "broker-amnesia")
            else:
                world.broker.start()
        case "connection-cut":
            if host.session is not None:
                host.session.cut()
        case "host-partition":
            host.partition(away=not host.partitioned)
        case "agent-crash":
            world.kill(f"agent {host.name}", rng.choice([0.0, 5.0]))
        case "spherelet-crash":
            world.kill(f"spherelet {host.name}", rng.choice([0.0, 5.0]))
        case "container-crash":
            running = sorted(host.runtime.running(), key=lambda state: state.id)
            if running:
                host.runtime.crash(rng.choice(running))
        case "power-cut":
            host.power_cut()
            down_s = rng.choice([2.0, 60.0])
            for process in (f"agent {host.name}", f"spherelet {host.name}"):
                world.kill(process, down_s)
        case _:
            raise AssertionError(fault)


# ---- the story -------------------------------------------------------------------------------------------------


async def story(world: World) -> None:
    """Set up, work under faults, quiet, converge."""
    user = User(world)
    options, rng = world.options, world.rng
    for name in NAMES:
        meta = {"name": name, "labels": {"team": "x"}}
        await _eventually(world, user, name, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    work, faults = _weighted(options.workload), _weighted(options.faults)
    for _ in range(options.steps):
        if faults and rng.random() < options.fault_share:
            strike(world, rng.choice(faults))
        else:
            await user.act(rng.choice(work))
        await world.clock.sleep(rng.choice(options.pace_s))
    world.quiet()
    since = world.now()
    while (why := unfinished(world, user)) is not None:
        if world.now() - since > CONVERGE_S:
            raise Violation(f"not converged {CONVERGE_S} s after the last fault: {why}")
        await world.clock.sleep(2.0)
    world.say(f"converged after {world.now() - since:.0f} s")


async def _eventually(world: World, user: User, name: str, obj: Object) -> None:
    while not any(each["metadata"]["name"] == name for each in world.checkers.of(NAMESPACES)):
        await user.ask(f"namespace {name}", lambda c: c.create(NAMESPACES, obj))
        await world.clock.sleep(0.2)


def _weighted(weights: dict[str, int]) -> list[str]:
    return [name for name in sorted(weights) for _ in range(weights[name])]


def unfinished(world: World, user: User) -> str | None:
    """What is not yet as it must be in the end; None when all is."""
    found = world.checkers
    for check in (_nodes, _deployments, _daemon_sets, _stateful_sets, _pods, _ports, _conditions, _network):
        why = check(world)
        if why is not None:
            return why
    for (namespace, name), value in sorted(user.counted.items()):
        maps = (obj for obj in found.of(CONFIG_MAPS) if obj["metadata"]["name"] == name)
        have = next((obj for obj in maps if obj["metadata"]["namespace"] == namespace), None)
        found.require(
            have is not None and int(have["data"]["value"]) >= value,
            f"acknowledged write {namespace}/{name} {value} is lost",
        )
    return None


def _nodes(world: World) -> str | None:
    ready = [node for node in world.checkers.of(NODES) if is_true(node["status"].get("conditions"), "Ready")]
    tainted = [node for node in ready if node["spec"].get("taints")]
    return None if len(ready) == len(world.hosts) and not tainted else "not every node is ready"


def _deployments(world: World) -> str | None:
    for each in world.checkers.of(DEPLOYMENTS):
        name, wanted, status = each["metadata"]["name"], each["spec"]["replicas"], each.get("status") or {}
        counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
        if counts != [wanted] * 3 or status.get("observedGeneration") != each["metadata"]["generation"]:
            return f"deployment {each['metadata']['namespace']}/{name} of {wanted} has {status}"
    return None


def _daemon_sets(world: World) -> str | None:
    counts = ("desiredNumberScheduled", "currentNumberScheduled", "updatedNumberScheduled", "numberAvailable")
    for each in world.checkers.of(DAEMON_SETS):
        status = each.get("status") or {}
        if [status.get(key, 0) for key in counts] != [len(world.hosts)] * 4:
            return f"daemon set {each['metadata']['namespace']} has {status}"
    return None


def _stateful_sets(world: World) -> str | None:
    counts = ("replicas", "readyReplicas", "updatedReplicas", "currentReplicas")
    for each in world.checkers.of(STATEFUL_SETS):
        status, wanted = each.get("status") or {}, each["spec"]["replicas"]
        if [status.get(key, 0) for key in counts] != [wanted] * 4:
            return f"stateful set {each['metadata']['namespace']} of {wanted} has {status}"
    return None


def _pods(world: World) -> str | None:
    deployments = {each["metadata"]["uid"] for each in world.checkers.of(DEPLOYMENTS)}
    sets = {
        each["metadata"]["uid"]
        for each in world.checkers.of(REPLICA_SETS)
        if any(owner["uid"] in deployments for owner in each["metadata"].get("ownerReferences", ()))
    }
    if len(sets) != len(world.checkers.of(REPLICA_SETS)):
        return "a replica set outlives its deployment"
    sets |= {each["metadata"]["uid"] for kind in (DAEMON_SETS, STATEFUL_SETS) for each in world.checkers.of(kind)}
    for pod in world.checkers.of(PODS):
        name = pod["metadata"]["name"]
        if not any(owner["uid"] in sets for owner in pod["metadata"].get("ownerReferences", ())):
            return f"pod {name} outlives its owner"
        if pods.is_deleting(pod) or not pods.is_ready(pod):
            return f"pod {name} is not ready, or still being deleted: {pod.get('status')}"
    return None


def _ports(world: World) -> str | None:
    uids = {pod["metadata"]["uid"] for pod in world.checkers.of(PODS)}
    stray = [port["metadata"]["name"] for port in world.checkers.of(PORTS) if port["spec"]["podUID"] not in uids]
    bound = {port["spec"]["podUID"] for port in world.checkers.of(PORTS)}
    for host in world.hosts:
        running = {state.pod_uid for state in host.runtime.running()}
        if running - uids:
            return f"{host.name} runs containers of pods that are gone"
    return f"ports without pods: {stray}" if stray else "a pod has no port" if uids - bound else None


def _conditions(world: World) -> str | None:
    for resource in (POLICIES, SERVICES):
        for obj in world.checkers.of(resource):
            meta = obj["metadata"]
            conditions = (obj.get("status") or {}).get("conditions")
            if not is_true(conditions, "Realized"):
                return f"{meta['namespace']}/{meta['name']} is not realized: {conditions}"
    return None


def _network(world: World) -> str | None:
    """Every agent holds exactly what is desired of it, and its kernel exactly what that renders to."""
    network = world.network
    if network is None or world.controller is None or world.controller.cache is None:
        return "no controller"
    if network.realization.hosts_behind() or world.controller.cache.revision < world.etcd.revision:
        return f"behind: {sorted(network.realization.hosts_behind())}"
    for uid in network.planner.ports:
        if not network.planner.is_cleared(uid):
            return f"port of {uid} is not cleared"
    for host in world.hosts:
        agent = host.agent
        if agent is None or agent.loop.enforcer.committed is None:
            return f"{host.name} has no agent"
        told = agent.desired.host.held.get("interest/namespaces")
        if told is None:
            return f"{host.name} has not been told its namespaces"
        interest = decode(told, InterestItem).namespaces
        for scope in (Scope.cluster(), Scope.host(host.name), *(Scope.namespace(name) for name in interest)):
            store = agent.desired.by_path(scope.path)
            if store is None or store.held != network.planner.desired.scopes[scope].items:
                return f"{host.name} does not hold {scope.path}"
        committed = agent.loop.enforcer.committed
        want = {key: value for key, value in committed.items() if key in host.kernel.entries}
        if want != host.kernel.entries:
            return f"the kernel of {host.name} is not what its agent believes"
        for namespace in interest:
            world.checkers.check_enforced(host, namespace, "all is quiet")
    return None
