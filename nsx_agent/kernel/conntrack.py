"""Connection tracking through ctnetlink: list flows, delete single ones (nfnetlink_conntrack.h)."""

import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Final

from nsx_agent.kernel.netlink import (
    NETLINK_NETFILTER,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    is_absent,
    nested,
)

NFNL_SUBSYS_CTNETLINK: Final = 1
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY = 1, 2
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST = 1, 2
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
PROTOCOL_NAMES: Final = {1: "icmp", 6: "tcp", 17: "udp", 132: "sctp"}
IS_UDP: Final = attribute(CTA_PROTO_NUM, b"\x11")
SEARCHED_MAX: Final = 256
_NFGEN = struct.Struct("=BBH")


@dataclass(frozen=True, slots=True)
class Flow:
    """A tracked flow: what the client sent to, and who really answers (after translation). No ports: 0."""

    protocol: str
    """``tcp``, ``udp``, ``sctp``, ``icmp``, or a number."""
    source: str
    destination: str
    port: int
    backend: str
    backend_port: int
    original: bytes
    """The original tuple as the kernel gave it: the handle for deleting."""


def listing(netlink: Netlink, addresses: frozenset[str], *, udp: bool = False) -> list[Flow]:
    """IPv4 flows, at least all with one of ``addresses`` at an end, with ``udp`` also all of UDP.

    Reading one takes some 25 microseconds, so those that have none of a few addresses are passed over unread.
    """
    if not addresses and not udp:
        return []
    kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
    bodies = netlink.dump(kind, _NFGEN.pack(socket.AF_INET, 0, 0), "list flows")
    if len(addresses) <= SEARCHED_MAX:
        wanted = [socket.inet_aton(address) for address in addresses]
        bodies = [body for body in bodies if (udp and IS_UDP in body) or any(one in body for one in wanted)]
    flows = (_flow(body) for body in bodies)
    return [flow for flow in flows if flow is not None]


def delete(netlink: Netlink, flow: Flow) -> None:
    """Forget one flow; already gone is fine."""
    kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
    body = _NFGEN.pack(socket.AF_INET, 0, 0) + flow.original
    try:
        netlink.request(kind, 0, body, "delete flow")
    except NetlinkError as err:
        if not is_absent(err):
            raise


def open_netlink() -> Netlink:
    return Netlink(NETLINK_NETFILTER)


def _flow(body: bytes) -> Flow | None:
    parsed = attributes(body, _NFGEN.size)
    with contextlib.suppress(KeyError, struct.error, OSError):  # OSError: an address that is not four bytes
        source, destination, protocol, port, _ = _tuple(parsed[CTA_TUPLE_ORIG])
        backend, _, _, _, backend_port = _tuple(parsed[CTA_TUPLE_REPLY])
        original = nested(CTA_TUPLE_ORIG, parsed[CTA_TUPLE_ORIG])
        name = PROTOCOL_NAMES.get(protocol, str(protocol))
        return Flow(name, source, destination, port, backend, backend_port, original)
    return None


def _tuple(raw: bytes) -> tuple[str, str, int, int, int]:
    """(source, destination, protocol, destination port, source port); ports are 0 where there are none."""
    parsed = attributes(raw)
    ip, proto = attributes(parsed[CTA_TUPLE_IP]), attributes(parsed[CTA_TUPLE_PROTO])
    return (
        socket.inet_ntoa(ip[CTA_IP_V4_SRC]),
        socket.inet_ntoa(ip[CTA_IP_V4_DST]),
        proto[CTA_PROTO_NUM][0],
        struct.unpack(">H", proto.get(CTA_PROTO_DST_PORT, b"\0\0"))[0],
        struct.unpack(">H", proto.get(CTA_PROTO_SRC_PORT, b"\0\0"))[0],
    )
