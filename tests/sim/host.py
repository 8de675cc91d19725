"""A host: kernel, containers and disk that outlive its processes; agent, spherelet and node keeper that do not."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.clock import Clock, rfc3339_micro
from common.errors import SphereError
from common.kube import KubeError
from common.messages import Watermark
from controller.runtime.resources import LEASES, NODES
from nsx_agent.uplink import Uplink, will
from spherelet.network import NetworkFailed
from tests.sim.agent import AgentProcess, site_of
from tests.sim.controller import ControllerProcess
from tests.sim.fakes.broker import FakeBroker, FakeSession
from tests.sim.fakes.kernel import FakeKernel, KernelOptions
from tests.sim.fakes.kube import FakeKube
from tests.sim.fakes.runtime import FakeRuntime, FakeSandboxes, RuntimeOptions
from tests.sim.options import Options
from tests.sim.spherelet import AgentSocket, SphereletProcess
from tests.support.hollow_hosts import node_object

LEASE_S = 10.0


class CheckedReports:
    """Shows every watermark to the checkers on its way to the uplink."""

    def __init__(self, uplink: Uplink, check: Callable[[Watermark], None]) -> None:
        self._uplink = uplink
        self._check = check

    def report(self, watermark: Watermark) -> None:
        self._check(watermark)
        self._uplink.report(watermark)

    def forget(self, path: str) -> None:
        self._uplink.forget(path)

    def stores_changed(self) -> None:
        self._uplink.stores_changed()


class Host:
    """``asked`` remembers when the agent was asked what about a pod: (op, uid) -> time of the first request."""

    def __init__(
        self,
        number: int,
        folder: Path,
        broker: FakeBroker,
        controller: Callable[[], ControllerProcess | None],
        clock: Clock,
        options: Options,
        rng: random.Random,
        on_watermark: Callable[["Host", Watermark], None],
    ) -> None:
        self.name, self.address = f"host-{number}", f"172.30.0.{10 + number}"
        self._folder = folder / self.name
        self._broker, self._clock, self._rng = broker, clock, rng
        self._on_watermark = on_watermark
        self.kernel = FakeKernel(clock, rng, KernelOptions(options.kernel_delay_s, options.kernel_refuses))
        self.runtime = FakeRuntime(
            clock, rng, RuntimeOptions(options.runtime_delay_s, options.runtime_fails, options.stubborn)
        )
        self.sandboxes = FakeSandboxes()
        self.kube = FakeKube(f"system:node:{self.name}", controller, clock, rng)
        self.kube.delay_s, self.kube.lost_answer = options.kube_delay_s, options.lost_answer
        self.agent: AgentProcess | None = None
        self.session: FakeSession | None = None
        self.partitioned = False
        self.asked: dict[tuple[str, str], float] = {}

    # Lives

    def new_agent(self) -> AgentProcess:
        """The next life of the agent."""
        session = self.session = self._broker.session(self.name, f"nsx-agent-{self.name}", self._clock, will(self.name))
        session.partitioned = self.partitioned
        agent = AgentProcess(
            site_of(self.name, self.address), self._folder / "nsx-agent", self.kernel, session, self._clock
        )
        agent.loop.connect(CheckedReports(agent.uplink, lambda watermark: self._on_watermark(self, watermark)))
        self.agent = agent
        return agent

    def new_spherelet(self) -> SphereletProcess:
        """The next life of spherelet."""
        return SphereletProcess(
            self.name,
            self.address,
            self._folder / "spherelet",
            self.runtime,
            self.sandboxes,
            self.kube,
            AgentSocket(self._ask_agent),
            self._clock,
            self._rng,
        )

    async def _ask_agent(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.setdefault((request["op"], request["pod_uid"]), self._clock.monotonic())
        agent = self.agent
        if agent is None or not agent.started:
            raise NetworkFailed("the network agent cannot be reached")
        answer = await agent.answer(request)
        if self.agent is not agent or not agent.started:
            raise NetworkFailed("the network agent ended before it answered")
        return answer

    async def keep_node(self) -> None:
        """Register the node, keep it ready and its lease renewed, as ``spherelet/node.py`` does."""
        while True:
            try:
                await self._keep_once()
                await self._clock.sleep(LEASE_S)
            except SphereError:
                await self._clock.sleep(2.0)

    async def _keep_once(self) -> None:
        fresh = node_object(self.name, self._clock.now())
        fresh["status"]["addresses"] = [{"type": "InternalIP", "address": self.address}]
        try:
            node = await self.kube.call(lambda client: client.get(NODES, "", self.name))
        except KubeError as err:
            if err.code != 404:
                raise
            node = await self.kube.call(lambda client: client.create(NODES, fresh))
        ready = next((each for each in node["status"].get("conditions", []) if each["type"] == "Ready"), {})
        if ready.get("status") != "True":
            await self.kube.call(lambda client: client.update_status(NODES, {**node, "status": fresh["status"]}))
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": "kube-node-lease"},
            "spec": {
                "holderIdentity": self.name,
                "leaseDurationSeconds": 40,
                "renewTime": rfc3339_micro(self._clock.now()),
            },
        }
        try:
            await self.kube.call(lambda client: client.update(LEASES, lease))
        except KubeError as err:
            if err.code != 404:
                raise
            await self.kube.call(lambda client: client.create(LEASES, lease))

    # Faults

    def partition(self, *, away: bool) -> None:
        """Cut off from API and broker, or back."""
        self.partitioned = self.kube.cut = away
        if self.session is not None:
            self.session.partitioned = away
            if away:
                self.session.cut()

    def power_cut(self) -> None:
        """What is in memory is gone; the disk stays. The processes are for the world to end."""
        self.kernel.power_cut()
        self.runtime.power_cut()
        self.sandboxes.power_cut()

    def quiet(self) -> None:
        """No more faults."""
        self.partition(away=False)
        self.kube.lost_answer = self.kernel.options.refuse = 0.0
        self.runtime.options.fail = self.runtime.options.stubborn = 0.0
