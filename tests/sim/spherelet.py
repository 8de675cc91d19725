"""spherelet's pod loop as ``spherelet/compose.py`` builds it, over fake containers, images and API connection."""

import asyncio
import random
from collections.abc import Awaitable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.clock import Clock
from spherelet import observed
from spherelet.config import Dns
from spherelet.desired import Desired
from spherelet.events import Events
from spherelet.loop import Loop
from spherelet.model import ContainerState, ContainerView, Image, Object, PodView
from spherelet.network import NetworkFailed
from spherelet.observed import Record
from spherelet.ports import Ports
from tests.sim.fakes.kube import FakeKube
from tests.sim.fakes.runtime import FakeRuntime, FakeSandboxes

IMAGE = Image("sha256:1", "busybox@sha256:1", ())


class FakeImages:
    """Every image is here."""

    def known(self, reference: str) -> Image | None:
        return IMAGE


class FakeVolumes:
    """No pod has any."""

    async def setup(self, pod: Object, pod_dir: Path, images: Mapping[str, Image]) -> Mapping[str, Path]:
        return {}

    async def subpaths(
        self, container: Object, pod_dir: Path, paths: Mapping[str, Path], env: Mapping[str, str]
    ) -> Mapping[int, Path]:
        return {}

    async def teardown(self, pod_dir: Path) -> None: ...


class FakeProbes:
    """No container has any."""

    def start(self, pod: PodView, state: ContainerState, pod_ip: str) -> None: ...

    def stop(self, container_id: str) -> None: ...


class FakeAssembly:
    """Containers of nothing."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng

    async def container(
        self, record: Record, container: ContainerView, attempt: int, backoff_s: float, handler: str, joined_pid: int
    ) -> tuple[ContainerState, Image, dict[str, Any]]:
        state = ContainerState(
            pod_uid=record.uid,
            name=container.name,
            attempt=attempt,
            id=f"{self._rng.getrandbits(256):064x}",
            directory=record.containers_dir / container.name / str(attempt),
            image=container.image,
            image_id=IMAGE.reference,
            handler=handler,
            created_at=self._clock.now(),
            backoff_s=backoff_s,
            epoch=record.sandbox.epoch if record.sandbox else 0,
        )
        return state, IMAGE, {}


class AgentSocket:
    """Has the face of ``spherelet.network.Network``: asks whichever agent runs now."""

    def __init__(self, ask: Any) -> None:
        self._ask_agent = ask

    async def prepare(self, uid: str, netns: Path) -> str:
        answer = await self._ask({"op": "prepare", "pod_uid": uid, "netns": str(netns), "timeout_s": 10.0})
        return str(answer["address"])

    async def add(self, uid: str, netns: Path) -> str:
        answer = await self._ask({"op": "add", "pod_uid": uid, "netns": str(netns), "timeout_s": 20.0})
        return str(answer["address"])

    async def delete(self, uid: str, netns: Path) -> None:
        await self._ask({"op": "del", "pod_uid": uid, "netns": str(netns)})

    async def drained(self, uid: str, timeout_s: float = 10.0) -> bool:
        return bool((await self._ask({"op": "drained", "pod_uid": uid, "timeout_s": timeout_s})).get("drained"))

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self._ask_agent(request)
        if not answer.get("ok"):
            raise NetworkFailed(f"{answer.get('code')}: {answer.get('message')}")
        return answer


class SphereletProcess:
    """One life of spherelet's pod loop."""

    def __init__(
        self,
        host: str,
        address: str,
        state_dir: Path,
        runtime: FakeRuntime,
        sandboxes: FakeSandboxes,
        kube: FakeKube,
        network: AgentSocket,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._host, self._address, self._pods_dir = host, address, state_dir / "pods"
        self._runtime, self._sandboxes, self._kube, self._network = runtime, sandboxes, kube, network
        self._clock, self._rng = clock, rng
        self.records: dict[str, Record] = {}

    async def run(self) -> None:
        """Until cancelled."""
        self._pods_dir.mkdir(parents=True, exist_ok=True)
        clock, kube = self._clock, self._kube
        plans, reports = Loop.queues(clock)
        self._runtime.on_exit = plans.add
        records = self.records = observed.read_back(self._pods_dir, self._runtime, self._sandboxes)
        events = Events(kube, self._host, clock)
        config = SimpleNamespace(
            host=self._host, address=self._address, containerd=SimpleNamespace(offline=True), dns=Dns()
        )

        async def handler(name: str) -> str:
            return "crun"

        async def credentials(record: Record, image: str) -> None:
            return None

        try:
            async with asyncio.TaskGroup() as group:

                def launch(record: Record, key: str, work: Awaitable[None]) -> None:
                    loop.launch(record, key, work)

                ports = Ports(
                    config=config,
                    clock=clock,
                    runtime=self._runtime,
                    sandboxes=self._sandboxes,
                    images=FakeImages(),
                    network=self._network,
                    volumes=FakeVolumes(),
                    probes=FakeProbes(),
                    events=events,
                    assembly=FakeAssembly(clock, self._rng),
                    hooks=None,
                    handler=handler,
                    credentials=credentials,
                    launch=launch,
                )
                desired = Desired(records, self._pods_dir, self._host, clock, plans.add)
                loop = Loop(records, desired, kube, clock, self._address, plans, reports, ports, group)
                group.create_task(events.run())
                group.create_task(loop.run())
        finally:
            self._runtime.on_exit = lambda uid: None
