"""The network controller and hollow agents on a real mosquitto: publish, realize, barrier, conditions, recovery."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from common.broker import CONTROLLER
from common.clock import SystemClock
from common.errors import Retryable
from common.messages import Failure, Scope
from common.mqtt import Outgoing, Received, Session
from controller.network.controller import NetworkController, NetworkPorts
from controller.network.views import (
    ADDRESS_BLOCKS,
    ENDPOINT_SLICES,
    NAMESPACES,
    NODES,
    PODS,
    POLICIES,
    PORTS,
    SEGMENTS,
    SERVICES,
)
from tests.support.mosquitto import Mosquitto, running_mosquitto
from tests.support.network_objects import a_namespace, a_node, a_pod, a_port, a_service, a_slice, an_endpoint
from tests.support.network_world import HollowAgent, Registry, until

pytestmark = pytest.mark.integration
CLOCK = SystemClock()
POLICY = {
    "metadata": {"namespace": "red", "name": "p", "uid": "u", "generation": 1},
    "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]},
}


class Cluster:
    """A registry with three nodes and a namespace, a controller, and agents on demand."""

    def __init__(self, mosquitto: Mosquitto, group: asyncio.TaskGroup) -> None:
        self.mosquitto, self.group = mosquitto, group
        self.registry = Registry()
        self.agents: dict[str, HollowAgent] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.registry.put(NAMESPACES, a_namespace("red", {"team": "r"}), a_namespace("blue"))
        self.registry.put(SEGMENTS, {"metadata": {"name": "red"}, "spec": {"vni": 4096, "subnets": ["10.64.0.0/22"]}})
        self.registry.put(NODES, *(a_node(f"host-{n}") for n in (1, 2, 3)))
        self.start_controller()

    def start_controller(self) -> None:
        session = Session(self.mosquitto.broker(CONTROLLER), CONTROLLER, CLOCK)
        ports = NetworkPorts(self.registry, self.registry, session, CLOCK, CollectorRegistry(), "epoch-1")
        self.controller = NetworkController(ports)
        self.tasks["controller"] = self.group.create_task(self.controller.run())

    async def stop(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        await until(task.done)

    def start_agent(self, host: str) -> HollowAgent:
        session = Session(self.mosquitto.broker(host), host, CLOCK, will=HollowAgent.will(host))
        agent = self.agents[host] = HollowAgent(host, session, CLOCK)
        self.tasks[host] = self.group.create_task(agent.run())
        return agent

    def bind(self, name: str, address: str, host: str, namespace: str = "red", **more: object) -> int:
        pod = a_pod(namespace, name, host, **more)  # type: ignore[arg-type]
        return self.registry.txn((PODS, pod), (PORTS, a_port(namespace, name, address, host)))

    def cleared(self, name: str, host: str, namespace: str = "red") -> bool:
        port = self.agents[host].port(f"uid-{namespace}-{name}")
        return port is not None and port.cleared

    def drained(self, name: str, host: str, namespace: str = "red") -> bool:
        port = self.agents[host].port(f"uid-{namespace}-{name}")
        return port is not None and port.drained


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running_mosquitto(tmp_path) as mosquitto:
        with contextlib.suppress(asyncio.CancelledError):
            async with asyncio.TaskGroup() as group:
                found = Cluster(mosquitto, group)
                for number in (1, 2, 3):
                    found.start_agent(f"host-{number}")
                await until(lambda: all(agent.kernel.get(Scope.cluster()) for agent in found.agents.values()))
                yield found
                for task in found.tasks.values():
                    task.cancel()


def condition(cluster: Cluster) -> str:
    found = cluster.registry.condition(POLICIES, "red", "p")
    return f"{found.get('status')}/{found.get('reason')}"


async def test_a_pod_is_cleared_when_its_peers_know(cluster: Cluster) -> None:
    cluster.registry.put(POLICIES, POLICY)
    cluster.bind("one", "10.64.0.1", "host-1", labels={"app": "a"})
    await until(lambda: cluster.cleared("one", "host-1"))
    cluster.bind("two", "10.64.0.2", "host-2")
    await until(lambda: cluster.cleared("two", "host-2"))
    cluster.agents["host-2"].paused = True
    cluster.bind("three", "10.64.0.3", "host-1", labels={"app": "a"})
    await until(lambda: cluster.agents["host-1"].port("uid-red-three"))
    await asyncio.sleep(0.2)
    assert not cluster.cleared("three", "host-1")
    cluster.agents["host-2"].resume()
    await until(lambda: cluster.cleared("three", "host-1"))
    items = cluster.agents["host-2"].kernel[Scope.namespace("red")]
    assert any(b"10.64.0.3" in payload for key, payload in items.items() if key.startswith("set/"))


async def test_a_policy_is_realized_when_its_hosts_say_so_and_not_before(cluster: Cluster) -> None:
    cluster.bind("one", "10.64.0.1", "host-1")
    cluster.bind("two", "10.64.0.2", "host-2")
    await until(lambda: cluster.cleared("one", "host-1") and cluster.cleared("two", "host-2"))
    cluster.agents["host-2"].paused = True
    cluster.registry.put(POLICIES, POLICY)
    await until(lambda: condition(cluster) == "False/Pending")
    assert "host-2" in cluster.registry.condition(POLICIES, "red", "p")["message"]
    assert "host-1 " not in cluster.registry.condition(POLICIES, "red", "p")["message"]
    cluster.agents["host-2"].resume()
    await until(lambda: condition(cluster) == "True/Realized")
    assert cluster.registry.condition(POLICIES, "red", "p")["observedGeneration"] == 1
    writes = len(cluster.registry.status_writes)
    cluster.bind("four", "10.64.0.4", "host-1")
    await until(lambda: cluster.cleared("four", "host-1"))
    assert len(cluster.registry.status_writes) == writes


async def test_a_failure_is_named(cluster: Cluster) -> None:
    cluster.bind("one", "10.64.0.1", "host-1")
    await until(lambda: cluster.cleared("one", "host-1"))
    failure = Failure(key="policy/p", reason="no such thing")
    cluster.agents["host-1"].failures[Scope.namespace("red")] = (failure,)
    cluster.registry.put(POLICIES, POLICY)
    await until(lambda: condition(cluster) == "False/Failed")
    assert "host-1: no such thing" in cluster.registry.condition(POLICIES, "red", "p")["message"]


async def test_a_dead_host_does_not_block_the_others(cluster: Cluster) -> None:
    cluster.bind("one", "10.64.0.1", "host-1")
    cluster.bind("two", "10.64.0.2", "host-2")
    await until(lambda: cluster.cleared("one", "host-1") and cluster.cleared("two", "host-2"))
    cluster.agents["host-2"].paused = True
    cluster.registry.put(POLICIES, POLICY)
    await until(lambda: condition(cluster) == "False/Pending")
    await cluster.stop("host-2")
    will = HollowAgent.will("host-2")
    session = Session(cluster.mosquitto.broker("host-2"), "host-2", CLOCK)
    dying = cluster.tasks["dying"] = cluster.group.create_task(
        session.run(lambda: session.publish([will]), lambda message: None)
    )
    await until(lambda: condition(cluster) == "False/Unreachable")
    assert "host-2" in cluster.registry.condition(POLICIES, "red", "p")["message"]
    cluster.bind("three", "10.64.0.3", "host-1")
    await until(lambda: cluster.cleared("three", "host-1"))
    cluster.registry.put(NODES, a_node("host-2", "Unknown"))
    await until(lambda: condition(cluster) == "True/Realized")
    assert "without host-2" in cluster.registry.condition(POLICIES, "red", "p")["message"]
    dying.cancel()


async def test_a_policy_follows_the_hosts_of_its_namespace(cluster: Cluster) -> None:
    def message() -> str:
        return str(cluster.registry.condition(POLICIES, "red", "p").get("message"))

    cluster.registry.put(POLICIES, POLICY)
    await until(lambda: "no host runs pods" in message())
    cluster.bind("one", "10.64.0.1", "host-1")
    await until(lambda: "in force on 1 host " in message())
    cluster.agents["host-2"].paused = True
    cluster.bind("two", "10.64.0.2", "host-2")
    await until(lambda: condition(cluster) == "False/Pending")
    cluster.agents["host-2"].resume()
    await until(lambda: "in force on 2 hosts " in message())
    assert condition(cluster) == "True/Realized"


async def test_draining_waits_for_every_load_balancer(cluster: Cluster) -> None:
    cluster.bind("one", "10.64.0.1", "host-1")
    endpoint = an_endpoint("10.64.0.1", "host-1", ready=True)
    cluster.registry.put(SERVICES, a_service("red", "web"))
    cluster.registry.put(ENDPOINT_SLICES, a_slice("red", "web", [endpoint]))
    service = "service/red/web"
    await until(lambda: b"10.64.0.1" in cluster.agents["host-3"].kernel[Scope.cluster()].get(service, b""))
    cluster.agents["host-3"].paused = True
    cluster.registry.put(PODS, a_pod("red", "one", "host-1", deleting=True))
    await asyncio.sleep(0.1)
    assert not cluster.drained("one", "host-1")
    gone = an_endpoint("10.64.0.1", "host-1", ready=False, serving=False, terminating=True)
    cluster.registry.put(ENDPOINT_SLICES, a_slice("red", "web", [gone]))
    await until(lambda: b"10.64.0.1" not in cluster.agents["host-2"].kernel[Scope.cluster()][service])
    await asyncio.sleep(0.1)
    assert not cluster.drained("one", "host-1")
    cluster.agents["host-3"].resume()
    await until(lambda: cluster.drained("one", "host-1"))


async def test_a_restarted_controller_publishes_nothing_new(cluster: Cluster) -> None:
    cluster.registry.put(POLICIES, POLICY)
    cluster.bind("one", "10.64.0.1", "host-1")
    await until(lambda: cluster.cleared("one", "host-1") and condition(cluster) == "True/Realized")
    before = dict(cluster.agents["host-1"].confirmed)
    writes = len(cluster.registry.status_writes)
    await cluster.stop("controller")
    cluster.start_controller()
    revision = cluster.bind("two", "10.64.0.2", "host-1")
    await until(lambda: cluster.cleared("two", "host-1"))
    assert cluster.agents["host-1"].confirmed[Scope.cluster()] == before[Scope.cluster()]
    assert cluster.cleared("one", "host-1")
    assert len(cluster.registry.status_writes) == writes
    assert await cluster.controller.realization.wait_reached(None, revision, 5)


async def test_a_broker_that_forgot_everything_is_filled_again(cluster: Cluster) -> None:
    cluster.registry.put(POLICIES, POLICY)
    cluster.bind("one", "10.64.0.1", "host-1")
    await until(lambda: cluster.cleared("one", "host-1") and condition(cluster) == "True/Realized")
    cluster.mosquitto.kill(forget=True)
    await cluster.mosquitto.start()
    revision = cluster.bind("two", "10.64.0.2", "host-2")
    await until(lambda: cluster.cleared("two", "host-2"), 20)
    assert cluster.cleared("one", "host-1")
    assert await cluster.controller.realization.wait_reached(None, revision, 5)


async def test_a_host_reads_and_writes_only_what_is_its_own(cluster: Cluster) -> None:
    cluster.bind("one", "10.64.0.1", "host-1")
    await until(lambda: cluster.cleared("one", "host-1"))
    await cluster.stop("host-1")
    got: list[str] = []
    session = Session(cluster.mosquitto.broker("host-1"), "host-1", CLOCK)

    def received(message: Received) -> None:
        got.append(message.topic)

    async def connected() -> None:
        return None

    task = cluster.tasks["spy"] = cluster.group.create_task(session.run(connected, received))
    await until(lambda: session.connected)
    for allowed in ("cluster/#", "host/host-1/#", "ns/red/#"):
        await session.subscribe([f"sphere/v1/{allowed}"])
    for denied in ("#", "host/host-2/#", "host/#", "ns/blue/#", "ns/#", "ns/+/#", "report/#", "report/host-1/#"):
        with pytest.raises(Retryable, match="refused"):
            await session.subscribe([f"sphere/v1/{denied}"])
    for denied in ("#", "$CONTROL/dynamic-security/v1/response", "$SYS/#"):
        with pytest.raises(Retryable, match="refused"):
            await session.subscribe([denied])
    watcher_got: list[Received] = []
    watcher = Session(cluster.mosquitto.broker(CONTROLLER), "watcher", CLOCK)
    cluster.tasks["watcher"] = cluster.group.create_task(
        watcher.run(lambda: watcher.subscribe(["sphere/v1/#"]), watcher_got.append)
    )
    await until(lambda: watcher_got)
    forged = [
        f"sphere/v1/{t}"
        for t in ("cluster/item/x/1", "host/host-1/item/x/1", "report/host-2/presence", "ns/red/manifest")
    ]
    await session.publish([Outgoing(topic, b"forged") for topic in (*forged, "$CONTROL/dynamic-security/v1")])
    await session.publish([Outgoing("sphere/v1/report/host-1/test/watermark", b"", retain=False)])
    await until(lambda: any(message.topic.endswith("/test/watermark") for message in watcher_got))
    assert not [message.topic for message in watcher_got if message.payload == b"forged"]
    task.cancel()


async def test_a_new_address_block_is_known_everywhere_first(cluster: Cluster) -> None:
    cluster.agents["host-3"].paused = True
    block = {"metadata": {"name": "10-64-0-0-28"}, "spec": {"cidr": "10.64.0.0/28", "segment": "red", "host": "host-1"}}
    pod, port = a_pod("red", "one", "host-1"), a_port("red", "one", "10.64.0.1", "host-1")
    cluster.registry.txn((PODS, pod), (PORTS, port), (ADDRESS_BLOCKS, block))
    await until(lambda: cluster.agents["host-1"].port("uid-red-one"))
    await asyncio.sleep(0.2)
    assert not cluster.cleared("one", "host-1")
    cluster.agents["host-3"].resume()
    await until(lambda: cluster.cleared("one", "host-1"))
