"""nsx-agent as ``nsx_agent/__main__.py`` builds it, over a fake kernel, resolver and broker session."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.clock import Clock
from nsx_agent.cni.ports import LoopPorts
from nsx_agent.cni.server import CniServer
from nsx_agent.desired import Desired
from nsx_agent.intent import Intent
from nsx_agent.loop import Loop
from nsx_agent.model import RecordKey
from nsx_agent.render.skeleton import Site
from nsx_agent.state import StateDir
from nsx_agent.uplink import Uplink
from tests.sim.fakes.broker import FakeSession
from tests.sim.fakes.kernel import FakeKernel

__all__ = ["AgentProcess", "FakeResolver", "site_of"]


class FakeResolver:
    """unbound's records; it is never away."""

    def __init__(self) -> None:
        self.records: dict[RecordKey, tuple[str, ...]] = {}

    def want(self, records: Mapping[RecordKey, tuple[str, ...] | None]) -> None:
        for key, value in records.items():
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value

    async def sync(self) -> None:
        """At once."""


class NullMeter:
    """Counts nothing."""

    def committed(self, scope: str, latency_s: float) -> None: ...
    def transaction(self, seconds: float, changes: int) -> None: ...
    def healed(self) -> None: ...
    def cni(self, op: str, ok: bool, seconds: float) -> None: ...


def site_of(host: str, underlay: str) -> Site:
    return Site(host, underlay, "eth0", "10.64.0.0/12", "10.96.0.0/16", "10.96.0.10", "cluster.local")


class AgentProcess:
    """One life of the agent. ``answer`` is its CNI socket."""

    def __init__(self, site: Site, state_dir: Path, kernel: FakeKernel, session: FakeSession, clock: Clock) -> None:
        self.desired = Desired(site.host)
        self.intent = Intent(site)
        self._state = StateDir(state_dir)
        self.loop = Loop(self.desired, self.intent, self._state, kernel, FakeResolver(), NullMeter(), clock)
        self.session = session
        self.uplink = Uplink(site.host, self.desired, session, clock, self.loop.wake.set)
        self.loop.connect(self.uplink)
        ports = LoopPorts(self.loop, kernel, lambda: session.connected)
        self._cni = CniServer(state_dir / "cni.sock", ports, NullMeter(), clock)
        self.started = False

    async def run(self) -> None:
        """Until cancelled, as ``nsx_agent.__main__.run``."""
        try:
            await self.loop.start()
            self.started = True
            async with asyncio.TaskGroup() as group:
                group.create_task(self.loop.run())
                group.create_task(self.session.run(self.uplink.connected, self.uplink.receive))
        finally:
            self.started = False
            self._state.close()

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request on the socket."""
        return await self._cni.answer(json.dumps(request).encode())
