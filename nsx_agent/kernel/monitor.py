"""Hears changes that are not ours: of nftables (nfnetlink), of links, neighbours, routes and rules (rtnetlink).

Groups and messages: include/uapi/linux/netfilter/nfnetlink.h, include/uapi/linux/rtnetlink.h.
"""

import contextlib
import errno
import socket
import struct
from enum import IntEnum
from typing import Final

from nsx_agent.kernel import links, ownership, routes
from nsx_agent.kernel.netlink import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    RECEIVE_BYTES,
    SOL_NETLINK,
    attributes,
    messages,
)
from nsx_agent.kernel.ownership import NFT_TABLE

NFNLGRP_NFTABLES: Final = 7
NFNL_SUBSYS_NFTABLES: Final = 10
NFT_MSG_NEWGEN: Final = 15
NFTA_TABLE: Final = 1
"""First attribute of every nftables message that belongs to a table: its name."""
RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE = 1, 3, 5, 7, 8
_LINK_OF = struct.Struct("=BBHi")
"""How ``ifinfomsg``, ``ndmsg`` and (as far as the index) ``ifaddrmsg`` begin."""
_NFGEN = struct.Struct("=BBH")


class NftMonitor:
    """A socket to watch; ``read`` says who changed our table."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> set[int]:
        """Drain the socket: netlink port ids of those who changed our table. nft's is its process id.

        The port id counts processes as this PID namespace does; the process id inside the notification does not.
        An overflow says nothing: our own large transactions cause it, and the audit compares anyway.
        """
        found: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data = self._socket.recv(RECEIVE_BYTES)
                except OSError as err:
                    if err.errno != errno.ENOBUFS:
                        raise
                    continue
                for kind, _, port, body in messages(data):
                    if port not in found and _is_ours(kind, body):
                        found.add(port)
        return found


def _is_ours(kind: int, body: bytes) -> bool:
    """Whether a notification is about our table."""
    if kind >> 8 != NFNL_SUBSYS_NFTABLES or kind & 0xFF == NFT_MSG_NEWGEN:
        return False
    return attributes(body, _NFGEN.size).get(NFTA_TABLE, b"").rstrip(b"\0") == NFT_TABLE.encode()


class _Rtm(IntEnum):
    DELADDR = 21
    DELRULE = 33


class RouteMonitor:
    """A socket to watch; ``read`` says what of ours may be missing. The audit finds out."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._socket.bind((0, 0))
        for group in (RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE):
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self, own: int) -> set[str]:
        """Drain the socket: what happened, but for what the socket with port id ``own`` asked for."""
        found: set[str] = set()
        tunnel = _index_of(ownership.VXLAN_LINK)
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data = self._socket.recv(RECEIVE_BYTES)
                except OSError as err:
                    if err.errno != errno.ENOBUFS:
                        raise
                    found.add("notifications were lost")
                    continue
                for kind, _, port, body in messages(data):
                    what = _loss(kind, body, tunnel) if port != own else ""
                    if what:
                        found.add(what)
        return found


def _index_of(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _loss(kind: int, body: bytes, tunnel: int) -> str:
    """What a notification says may be gone, or nothing. ``tunnel`` is the index of the tunnel device."""
    match kind:
        case links.RTM_DELLINK | links.RTM_NEWLINK:
            return _link_loss(kind, body)
        case routes.RTM_DELROUTE:
            return "a route was removed" if body[5] == ownership.ROUTE_PROTOCOL else ""
        case routes.RTM_DELNEIGH | routes.RTM_NEWNEIGH:
            _, _, _, link = _LINK_OF.unpack_from(body)
            (state,) = struct.unpack_from("=H", body, 8)
            lost = kind == routes.RTM_DELNEIGH or not state & routes.NUD_PERMANENT
            return "a tunnel's neighbour was removed" if link == tunnel and lost else ""
        case _Rtm.DELADDR:
            return "an address was removed" if struct.unpack_from("=I", body, 4)[0] == _index_of("lo") else ""
        case _Rtm.DELRULE:
            return "a rule was removed"
        case _:
            return ""


def _link_loss(kind: int, body: bytes) -> str:
    name = attributes(body, 16).get(links.IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
    (flags,) = struct.unpack_from("=I", body, 8)
    if name == ownership.VXLAN_LINK:
        return "the tunnel device was changed"
    if (
        kind == links.RTM_NEWLINK
        and not flags & links.IFF_UP
        and (name == "lo" or name.startswith(ownership.LINK_PREFIX))
    ):
        return f"{name} is down"
    return ""
