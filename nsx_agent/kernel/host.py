"""The real kernel of this network namespace, as ``apply.Kernel``."""

import asyncio
from typing import Final

from common.errors import Retryable
from nsx_agent.kernel import conntrack, links, ownership, routes
from nsx_agent.kernel.conntrack import Flow
from nsx_agent.kernel.elements import Part
from nsx_agent.kernel.links import PodLink
from nsx_agent.kernel.netlink import Netlink
from nsx_agent.kernel.nft import Nft
from nsx_agent.kernel.routes import Seen
from nsx_agent.model import Route, RouteKind

TUNNEL_BYTES: Final = 50
"""VXLAN over IPv4 over Ethernet: what the tunnel takes of each packet."""
MTU_MIN: Final = 576
"""What every IPv4 host must be able to receive (RFC 791)."""


class HostKernel:
    """Netlink sockets and nft, made in the namespace this process was started in."""

    def __init__(self, dns_address: str, underlay_address: str, underlay_device: str) -> None:
        self._underlay_address = underlay_address
        self._underlay_device = underlay_device
        self._dns_address = dns_address
        self._route = Netlink()
        self._conntrack = conntrack.open_netlink()
        self.nft = Nft()

    @property
    def port(self) -> int:
        """Netlink port id of the socket that changes routes."""
        return self._route.port

    def prepare(self) -> None:
        """Sysctls, tunnel device, service address, routing rule. Idempotent. Raises ``Retryable``."""
        links.write_sysctls()
        links.ensure_loopback(self._route, self._dns_address)
        links.ensure_tunnel(self._route, self._underlay_address, self.pod_mtu())
        routes.put_mark_rule(self._route)

    def pod_mtu(self) -> int:
        """Bytes a pod's packet may have: what the underlay carries, less the tunnel. Raises ``Retryable``."""
        device = self._underlay_device
        mtu = links.mtu(self._route, routes.index_of(device)) - TUNNEL_BYTES
        if mtu < MTU_MIN:
            raise Retryable(f"the MTU of {device} leaves {mtu} bytes for pods, too few; raise it")
        return mtu

    async def transaction(self, text: str) -> None:
        await self.nft.run(text)

    async def element_transaction(self, parts: list[Part]) -> None:
        await self.nft.run_elements(parts)

    async def stamp(self) -> str | None:
        return await self.nft.read_stamp()

    async def counters(self) -> dict[str, int]:
        return await self.nft.read_counters()

    def put_route(self, route: Route) -> None:
        if route.kind is RouteKind.DIRECT and route.device.startswith(ownership.LINK_PREFIX):
            links.set_up(self._route, routes.index_of(route.device))
        routes.put(self._route, route)

    def drop_route(self, table: int, cidr: str) -> None:
        routes.remove(self._route, table, cidr)

    def routes(self) -> set[Seen]:
        return routes.listing(self._route)

    def tunnel_ends(self) -> set[str]:
        link = routes.index_of(ownership.VXLAN_LINK)
        seen = routes.neighbours(self._route, link)
        return {address for address, mac in seen if mac == ownership.overlay_mac(address)}

    def pod_links(self) -> set[str]:
        return links.pod_links(self._route)

    async def ensure_pod_link(self, pod: PodLink) -> None:
        await asyncio.to_thread(self._ensure_pod_link, pod)

    def _ensure_pod_link(self, pod: PodLink) -> None:
        netlink = Netlink()
        try:
            links.ensure_pod_link(netlink, pod)
        finally:
            netlink.close()

    async def drop_pod_link(self, name: str) -> None:
        """Off the loop: the kernel waits some 20 ms until nobody uses the device."""
        await asyncio.to_thread(self._drop_pod_link, name)

    def _drop_pod_link(self, name: str) -> None:
        netlink = Netlink()
        try:
            links.remove(netlink, name)
        finally:
            netlink.close()

    def flows(self, addresses: frozenset[str], *, udp: bool = False) -> list[Flow]:
        """At least the flows that have one of ``addresses`` at an end; with ``udp`` also all of UDP."""
        return conntrack.listing(self._conntrack, addresses, udp=udp)

    def drop_flow(self, flow: Flow) -> None:
        conntrack.delete(self._conntrack, flow)

    def close(self) -> None:
        self._route.close()
        self._conntrack.close()
        self.nft.close()
