"""Routes, addresses, neighbours and rules through rtnetlink (include/uapi/linux/rtnetlink.h, lwtunnel.h)."""

import socket
import struct
from dataclasses import dataclass
from typing import Final

from nsx_agent.kernel import ownership
from nsx_agent.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    is_absent,
    is_present,
    nested,
    u16,
    u32,
)
from nsx_agent.model import Route, RouteKind

RTM_NEWADDR: Final = 20
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE: Final = 32
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_TABLE, RTA_ENCAP_TYPE, RTA_ENCAP = 1, 4, 5, 7, 15, 21, 22
RTN_UNICAST, RTN_BLACKHOLE = 1, 6
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTNH_F_ONLINK: Final = 4
LWTUNNEL_ENCAP_IP: Final = 2
LWTUNNEL_IP_ID, LWTUNNEL_IP_DST = 1, 2
NUD_PERMANENT: Final = 0x80
NDA_DST, NDA_LLADDR = 1, 2
_NDMSG = struct.Struct("=BBHiHBB")
IFA_ADDRESS, IFA_LOCAL = 1, 2
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE = 6, 10, 15
RT_TABLE_UNSPEC: Final = 0
_RTMSG = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class Seen:
    """A route of ours as the kernel lists it. ``remote`` is the host a tunnel leads to, else empty."""

    table: int
    cidr: str
    remote: str = ""


def _split(cidr: str) -> tuple[bytes, int]:
    address, _, prefix = cidr.partition("/")
    return socket.inet_aton(address), int(prefix or 32)


def _body(route: Route, link: int) -> bytes:
    destination, prefix = _split(route.cidr)
    blackhole = route.kind is RouteKind.BLACKHOLE
    scope = RT_SCOPE_LINK if route.kind is RouteKind.DIRECT else RT_SCOPE_UNIVERSE
    flags = RTNH_F_ONLINK if route.kind is RouteKind.TUNNEL else 0
    head = _RTMSG.pack(
        socket.AF_INET,
        prefix,
        0,
        0,
        route.table if route.table < 256 else RT_TABLE_UNSPEC,
        ownership.ROUTE_PROTOCOL,
        scope,
        RTN_BLACKHOLE if blackhole else RTN_UNICAST,
        flags,
    )
    parts = [head, attribute(RTA_DST, destination), attribute(RTA_TABLE, u32(route.table))]
    if not blackhole:
        parts.append(attribute(RTA_OIF, u32(link)))
    if route.source:
        parts.append(attribute(RTA_PREFSRC, socket.inet_aton(route.source)))
    if route.kind is RouteKind.TUNNEL:
        parts += [
            attribute(RTA_GATEWAY, socket.inet_aton(route.remote)),
            attribute(RTA_ENCAP_TYPE, u16(LWTUNNEL_ENCAP_IP)),
            nested(
                RTA_ENCAP,
                attribute(LWTUNNEL_IP_ID, struct.pack(">Q", route.vni)),
                attribute(LWTUNNEL_IP_DST, socket.inet_aton(route.remote)),
            ),
        ]
    return b"".join(parts)


def put(netlink: Netlink, route: Route) -> None:
    """Create or replace. Raises ``NetlinkError``, also when the device is missing."""
    link = 0 if route.kind is RouteKind.BLACKHOLE else index_of(route.device)
    if route.kind is RouteKind.TUNNEL:
        put_neighbour(netlink, route.remote, ownership.overlay_mac(route.remote), link)
    netlink.request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _body(route, link), f"add route {route.cidr}")


def remove(netlink: Netlink, table: int, cidr: str) -> None:
    """Delete our route to ``cidr``; absent is fine."""
    destination, prefix = _split(cidr)
    head = _RTMSG.pack(socket.AF_INET, prefix, 0, 0, table, ownership.ROUTE_PROTOCOL, 255, 0, 0)
    body = head + attribute(RTA_DST, destination) + attribute(RTA_TABLE, u32(table))
    try:
        netlink.request(RTM_DELROUTE, 0, body, f"delete route {cidr}")
    except NetlinkError as err:
        if not is_absent(err):
            raise


def listing(netlink: Netlink) -> set[Seen]:
    """Routes with our protocol number, in all tables."""
    head = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, ownership.ROUTE_PROTOCOL, 0, 0, 0)
    found: set[Seen] = set()
    for body in netlink.dump(RTM_GETROUTE, head, "list routes"):
        _, prefix, _, _, table, protocol, _, _, _ = _RTMSG.unpack_from(body)
        if protocol != ownership.ROUTE_PROTOCOL:
            continue
        parsed = attributes(body, _RTMSG.size)
        if RTA_TABLE in parsed:
            table = struct.unpack("=I", parsed[RTA_TABLE])[0]
        address = socket.inet_ntoa(parsed.get(RTA_DST, b"\0\0\0\0"))
        gateway = parsed.get(RTA_GATEWAY)
        found.add(Seen(table, f"{address}/{prefix}", socket.inet_ntoa(gateway) if gateway else ""))
    return found


def index_of(device: str) -> int:
    """Interface index. Raises ``NetlinkError`` (ENODEV)."""
    try:
        return socket.if_nametoindex(device)
    except OSError as err:
        raise NetlinkError(err.errno or 19, f"no device {device}") from err


def put_default(netlink: Netlink, gateway: str, link: int) -> None:
    """Default route via an on-link gateway, in a pod's namespace."""
    head = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 254, 3, RT_SCOPE_UNIVERSE, RTN_UNICAST, RTNH_F_ONLINK)
    body = head + attribute(RTA_OIF, u32(link)) + attribute(RTA_GATEWAY, socket.inet_aton(gateway))
    netlink.request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, "add default route")


def put_address(netlink: Netlink, address: str, link: int) -> None:
    """A /32 on a device."""
    head = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, link)
    raw = socket.inet_aton(address)
    body = head + attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)
    netlink.request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, f"add address {address}")


def put_neighbour(netlink: Netlink, address: str, mac: str, link: int) -> None:
    """A permanent neighbour entry: nobody has to ask, nobody can lie."""
    head = _NDMSG.pack(socket.AF_INET, 0, 0, link, NUD_PERMANENT, 0, 0)
    body = (
        head
        + attribute(NDA_DST, socket.inet_aton(address))
        + attribute(NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    )
    netlink.request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, f"add neighbour {address}")


def neighbours(netlink: Netlink, link: int) -> set[tuple[str, str]]:
    """(address, MAC) of the permanent entries of a device."""
    found: set[tuple[str, str]] = set()
    for body in netlink.dump(RTM_GETNEIGH, _NDMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0), "list neighbours"):
        _, _, _, device, state, _, _ = _NDMSG.unpack_from(body)
        parsed = attributes(body, _NDMSG.size)
        if device == link and state & NUD_PERMANENT and NDA_DST in parsed and NDA_LLADDR in parsed:
            found.add((socket.inet_ntoa(parsed[NDA_DST]), parsed[NDA_LLADDR].hex(":")))
    return found


def put_mark_rule(netlink: Netlink) -> None:
    """``ip rule fwmark HOST_MARK lookup HOST_TABLE``."""
    head = _RTMSG.pack(socket.AF_INET, 0, 0, 0, ownership.HOST_TABLE, ownership.ROUTE_PROTOCOL, 0, RTN_UNICAST, 0)
    body = (
        head
        + attribute(FRA_PRIORITY, u32(ownership.RULE_PRIORITY))
        + attribute(FRA_FWMARK, u32(ownership.HOST_MARK))
        + attribute(FRA_TABLE, u32(ownership.HOST_TABLE))
    )
    try:
        netlink.request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, body, "add rule")
    except NetlinkError as err:
        if not is_present(err):
            raise
