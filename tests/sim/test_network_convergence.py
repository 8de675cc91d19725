"""The network controller and three agents under seeded faults: complete once it is quiet.

Faults: cut connections, a broker that stops, one that comes back without its memory, paused agents, a restarted
controller, duplicates. ``pytest tests/sim/test_network_convergence.py -k <seed>`` replays one seed exactly.
"""

import asyncio
import random

import pytest
from prometheus_client import CollectorRegistry

from common.broker import CONTROLLER
from common.messages import InterestItem, Scope, decode
from controller.network.controller import NetworkController, NetworkPorts
from controller.network.views import ENDPOINT_SLICES, NAMESPACES, NODES, PODS, POLICIES, PORTS, SERVICES
from tests.sim.fakes.broker import FakeBroker
from tests.sim.virtual_loop import VirtualClock, run
from tests.support.network_objects import a_namespace, a_node, a_pod, a_port, a_service, a_slice, an_endpoint
from tests.support.network_world import HollowAgent, Registry

SEEDS = range(30)
STEPS = 120
HOSTS = ("host-1", "host-2", "host-3")
QUIET_S = 60.0
CLOCK = VirtualClock()


class World:
    """Everything that a seed decides about."""

    def __init__(self, seed: int, group: asyncio.TaskGroup) -> None:
        self.rng = random.Random(seed)
        self.group = group
        self.broker = FakeBroker(self.rng, duplicates=0.05)
        self.registry = Registry()
        self.pods: dict[str, tuple[str, str]] = {}
        self.serial = 0
        self.registry.put(NAMESPACES, a_namespace("red"), a_namespace("blue", {"team": "b"}))
        self.registry.put(NODES, *(a_node(host) for host in HOSTS))
        self.agents = {}
        self.sessions = {}
        for host in HOSTS:
            session = self.sessions[host] = self.broker.session(host, host, CLOCK, HollowAgent.will(host))
            self.agents[host] = HollowAgent(host, session, CLOCK)
        self.tasks = [group.create_task(agent.run()) for agent in self.agents.values()]
        self.start_controller()

    def start_controller(self) -> None:
        session = self.sessions["controller"] = self.broker.session(CONTROLLER, CONTROLLER, CLOCK)
        ports = NetworkPorts(self.registry, self.registry, session, CLOCK, CollectorRegistry(), "e")
        self.controller = NetworkController(ports)
        self.controller_task = self.group.create_task(self.controller.run())

    def step(self) -> None:
        """One random event."""
        match self.rng.randrange(14):
            case 0 | 1 | 2:
                self.bind()
            case 3:
                self.delete_pod()
            case 4 | 5:
                self.policy()
            case 6:
                self.service()
            case 7:
                self.rng.choice(list(self.sessions.values())).cut()
            case 8:
                if self.broker.up:
                    self.broker.stop(forget=self.rng.random() < 0.5)
                else:
                    self.broker.start()
            case 9:
                agent = self.agents[self.rng.choice(HOSTS)]
                agent.paused = not agent.paused
                agent.resume() if not agent.paused else None
            case 10 if self.rng.random() < 0.3:
                self.controller_task.cancel()
                self.start_controller()
            case _:
                labels = {"team": self.rng.choice("ab")}
                self.registry.put(NAMESPACES, a_namespace("blue", labels))

    def bind(self) -> None:
        self.serial += 1
        namespace, host = self.rng.choice(["red", "blue"]), self.rng.choice(HOSTS)
        name, address = f"pod-{self.serial}", f"10.64.{self.serial // 200}.{self.serial % 200}"
        pod = a_pod(namespace, name, host, {"app": self.rng.choice("ab")})
        self.registry.txn((PODS, pod), (PORTS, a_port(namespace, name, address, host)))
        self.pods[name] = (namespace, address)

    def delete_pod(self) -> None:
        if self.pods:
            name = self.rng.choice(sorted(self.pods))
            namespace, address = self.pods.pop(name)
            self.registry.delete(PODS, namespace, name)
            self.registry.delete(PORTS, namespace, address.replace(".", "-"))

    def policy(self) -> None:
        namespace, name = self.rng.choice(["red", "blue"]), f"p-{self.rng.randrange(2)}"
        if self.rng.random() < 0.3 and self.registry.get(POLICIES, namespace, name):
            self.registry.delete(POLICIES, namespace, name)
            return
        peer = {"podSelector": {"matchLabels": {"app": self.rng.choice("ab")}}}
        if self.rng.random() < 0.5:
            peer["namespaceSelector"] = {"matchLabels": {"team": "b"}}
        meta = {"namespace": namespace, "name": name, "uid": f"{namespace}-{name}", "generation": self.serial}
        self.registry.put(POLICIES, {"metadata": meta, "spec": {"podSelector": {}, "ingress": [{"from": [peer]}]}})

    def service(self) -> None:
        self.registry.put(SERVICES, a_service("red", "web"))
        chosen = self.rng.sample(sorted(self.pods), min(2, len(self.pods)))
        endpoints = [an_endpoint(self.pods[name][1], self.rng.choice(HOSTS), ready=True) for name in chosen]
        self.registry.put(ENDPOINT_SLICES, a_slice("red", "web", endpoints))

    def check_complete(self) -> None:
        """Every agent holds exactly what is desired for it, every pod may start, every policy is realized."""
        desired = {scope: items.items for scope, items in self.controller.planner.desired.scopes.items()}
        for host, agent in self.agents.items():
            held = decode(agent.kernel[Scope.host(host)]["interest/namespaces"], InterestItem).namespaces
            scopes = {Scope.cluster(), Scope.host(host), *(Scope.namespace(name) for name in held)}
            assert agent.kernel.keys() == scopes
            for scope in scopes:
                assert agent.kernel[scope] == desired[scope], (host, scope)
        for name, (namespace, _) in self.pods.items():
            assert self.controller.planner.is_cleared(f"uid-{namespace}-{name}"), name
        for resource in (POLICIES, SERVICES):
            for entry in self.registry.list(resource):
                condition = self.registry.condition(resource, entry.namespace, entry.name)
                assert condition["status"] == "True", (entry.key, condition)
        assert self.controller.realization.reached(None, self.registry.revision)
        assert not self.controller.realization.hosts_behind()


async def scenario(seed: int) -> list[str]:
    """Returns what was retained at the end, in order: two runs of a seed must agree."""
    async with asyncio.TaskGroup() as group:
        world = World(seed, group)
        for _ in range(STEPS):
            world.step()
            await CLOCK.sleep(world.rng.choice([0.0, 0.001, 0.01, 0.3, 3.0]))
        world.broker.start()
        for agent in world.agents.values():
            agent.resume()
        await CLOCK.sleep(QUIET_S)
        world.check_complete()
        for task in (*world.tasks, world.controller_task):
            task.cancel()
    return sorted(world.broker.retained)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_converges_after_any_faults(seed: int) -> None:
    run(scenario(seed))


def test_a_seed_replays_exactly() -> None:
    assert run(scenario(7)) == run(scenario(7))
