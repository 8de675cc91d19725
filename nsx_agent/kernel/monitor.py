"""Hears changes of nftables that are not ours (nfnetlink, NFNLGRP_NFTABLES)."""

import contextlib
import errno
import socket
import struct
from typing import Final

from nsx_agent.kernel.netlink import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
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
