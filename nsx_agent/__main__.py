"""nsx-agent: builds the parts and runs them in one task group."""

import asyncio
from functools import partial

from common.clock import SystemClock
from common.entry import daemon
from common.http import Answer, Page, PageServer
from common.logs import logger
from common.metrics import CONTENT_TYPE
from common.mqtt import Session
from nsx_agent.cni.ports import LoopPorts
from nsx_agent.cni.server import CniServer
from nsx_agent.config import Config, site
from nsx_agent.desired import Desired
from nsx_agent.dns.unbound import Unbound
from nsx_agent.intent import Intent
from nsx_agent.kernel import links
from nsx_agent.kernel.host import HostKernel
from nsx_agent.kernel.monitor import NftMonitor, RouteMonitor
from nsx_agent.kernel.ownership import LINK_PREFIX
from nsx_agent.loop import Loop
from nsx_agent.metrics import AgentMeter
from nsx_agent.state import StateDir
from nsx_agent.uplink import Uplink, will
from nsx_agent.watchers import watch_resolver, watch_routes, watch_table

log = logger("nsx-agent")


async def run(config: Config) -> None:
    """Run until cancelled."""
    clock, meter, facts = SystemClock(), AgentMeter(), site(config)
    kernel = HostKernel(facts.dns_address, facts.underlay_address, facts.underlay_device)
    resolver = Unbound(config.dns.control_socket, facts.domain)
    desired = Desired(config.host)
    loop = Loop(desired, Intent(facts), StateDir(config.state_dir), kernel, resolver, meter, clock)
    session = Session(config.broker, f"nsx-agent-{config.host}", clock, will=will(config.host))
    uplink = Uplink(config.host, desired, session, clock, loop.wake.set)
    loop.connect(uplink)
    ports = LoopPorts(loop, kernel, lambda: session.connected)
    server = PageServer(config.metrics.listen, config.metrics.tls, _pages(loop, kernel, session, meter))
    monitor, route_monitor = NftMonitor(), RouteMonitor()
    try:
        await loop.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(loop.run())
            group.create_task(watch_table(monitor, monitor.read, kernel.nft.is_own, loop.drift))
            changes = partial(route_monitor.read, kernel.port)
            group.create_task(watch_routes(route_monitor, changes, _matters, loop.suspect, clock))
            group.create_task(watch_resolver(lambda: resolver.behind, loop.wake.set, clock))
            group.create_task(CniServer(config.socket, ports, meter, clock).run())
            group.create_task(server.run())
            group.create_task(session.run(uplink.connected, uplink.receive))
    finally:
        monitor.close()
        route_monitor.close()
        kernel.close()


def _matters(reason: str) -> bool:
    """A pod's link that was down is mostly one that was being made, or removed."""
    return not reason.startswith(LINK_PREFIX) or links.is_down(reason.split()[0])


def _pages(loop: Loop, kernel: HostKernel, session: Session, meter: AgentMeter) -> dict[str, Page]:
    async def metrics() -> Answer:
        items: dict[str, int] = {}
        for store in loop.desired.stores():
            kind = store.scope.path.partition("/")[0]
            items[kind] = items.get(kind, 0) + len(store.held)
        failed = sum(len(failures) for _, failures in loop.reported.values())
        dropped = await loop.enforcer.counters()
        page = meter.page(connected=session.connected, items=items, failed=failed, dropped=dropped)
        return Answer(200, page, CONTENT_TYPE)

    async def health() -> Answer:
        return Answer(200, b"ok\n")

    async def ready() -> Answer:
        behind = [store.scope.path for store in loop.desired.stores() if not store.complete]
        if loop.enforcer.committed is None or behind:
            return Answer(503, f"not enforcing yet; waiting for {', '.join(behind) or 'the kernel'}\n".encode())
        return Answer(200, b"ok\n")

    return {"/metrics": Page(metrics), "/healthz": Page(health, public=True), "/readyz": Page(ready, public=True)}


main = daemon("nsx-agent", Config, run)

if __name__ == "__main__":
    main()
