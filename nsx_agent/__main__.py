"""nsx-agent: builds the parts and runs them in one task group."""

import asyncio

from common.clock import SystemClock
from common.entry import daemon
from common.http import Answer, Page, PageServer
from common.logs import logger
from common.metrics import CONTENT_TYPE
from common.mqtt import Session
from common.tasks import Wake
from nsx_agent.cni.ports import LoopPorts
from nsx_agent.cni.server import CniServer
from nsx_agent.config import DNS_LOOK_S, SUSPECT_S, Config, site
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

log = logger("nsx-agent")


async def run(config: Config) -> None:
    """Run until cancelled."""
    clock, meter, facts = SystemClock(), AgentMeter(), site(config)
    kernel = HostKernel(facts.dns_address, facts.underlay_address)
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
            group.create_task(_watch_table(monitor, kernel, loop))
            group.create_task(_watch_routes(route_monitor, kernel, loop, clock))
            group.create_task(_watch_resolver(resolver, loop, clock))
            group.create_task(CniServer(config.socket, ports, meter, clock).run())
            group.create_task(server.run())
            group.create_task(session.run(uplink.connected, uplink.receive))
    finally:
        monitor.close()
        route_monitor.close()
        kernel.close()


async def _watch_table(monitor: NftMonitor, kernel: HostKernel, loop: Loop) -> None:
    """Foreign changes of our table are undone at once."""
    heard = Wake()
    asyncio.get_running_loop().add_reader(monitor.fileno(), heard.set)
    try:
        while True:
            await heard.wait()
            for process in sorted(monitor.read()):
                if not await kernel.nft.is_own(process):
                    loop.drift()
    finally:
        asyncio.get_running_loop().remove_reader(monitor.fileno())


async def _watch_routes(monitor: RouteMonitor, kernel: HostKernel, loop: Loop, clock: SystemClock) -> None:
    """Foreign changes of links, routes and neighbours make the loop look after its own, soon."""
    heard = Wake()
    asyncio.get_running_loop().add_reader(monitor.fileno(), heard.set)
    try:
        while True:
            await heard.wait()
            reasons = monitor.read(kernel.port)
            if not reasons:
                continue
            await clock.sleep(SUSPECT_S)
            # A pod's link that went down is mostly one that was being removed.
            if any(not reason.startswith(LINK_PREFIX) or links.exists(reason.split()[0]) for reason in reasons):
                log.info("looking after routes and links", reason="; ".join(sorted(reasons)))
                loop.suspect()
    finally:
        asyncio.get_running_loop().remove_reader(monitor.fileno())


async def _watch_resolver(resolver: Unbound, loop: Loop, clock: SystemClock) -> None:
    """A resolver that was restarted needs its records again."""
    while True:
        await clock.sleep(DNS_LOOK_S)
        if resolver.behind:
            loop.wake.set()


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
